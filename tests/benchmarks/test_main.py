"""Claims of ``python -m benchmarks``."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import BENCHMARKS, main


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in BENCHMARKS)


def test_an_unknown_name_is_named_in_one_line_with_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["NOPE", "--seeds", "1"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("losa: error: NAME: 'NOPE' is unknown; use one of ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
