"""Claims of benchmarks.ablation."""

from __future__ import annotations

import pytest

from benchmarks.ablation import VARIANTS, main
from losa.config import AdaptConfig


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_valid_configuration_that_differs_from_the_default(name: str) -> None:
    changed = AdaptConfig(**VARIANTS[name])
    assert (changed == AdaptConfig()) == (name == "default")


def test_an_unknown_task_costs_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--tasks", "digits,dogs"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("losa: error: --tasks: 'dogs' is unknown")
    assert error.count("\n") == 1
