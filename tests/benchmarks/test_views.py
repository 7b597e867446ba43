"""Claims of benchmarks.views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import record, suite, views
from losa.config import ExtractConfig

ACCURACY = {"": (0.5, 0.6), "crop-flip": (0.6, 0.9), "randaug": (0.4, 0.4)}


def result(task: str, flags: Sequence[str]) -> suite.Result:
    by_seed = ACCURACY["".join(flags[-1:])]
    return suite.Result(task, "losa", sum(by_seed) / 2, 0.0, 0.5, 7, 1.0, 9, 0.1, 0.1, by_seed)


def test_one_view_comes_first_and_then_every_policy_of_the_configuration() -> None:
    first, *others = views.variants(4)
    assert first == []
    for flags in others:
        config = ExtractConfig(model="", dataset="", views=flags[1], augment=flags[3])  # type: ignore[arg-type]  # as flags give it
        assert config.views == 4
    assert len(others) == len(views.POLICIES) == 2


def test_gains_are_of_the_same_seeds_whatever_their_sign() -> None:
    found = [result("textile", flags) for flags in views.variants(2)]
    better = views.described(found[1], found)
    worse = views.described(found[2], found)
    assert better["gain"] == pytest.approx(0.2)
    assert better["gain_error"] == pytest.approx(0.1)
    assert worse["gain"] == pytest.approx(-0.15)
    assert worse["gain_error"] == pytest.approx(0.05)


def test_the_last_line_is_the_document_that_is_also_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fixed:
        def __init__(self, task: str, flags: Sequence[str]) -> None:
            self.found = result(task, flags)

        def measure(self, *_: object) -> suite.Result:
            return self.found

    monkeypatch.setattr(views, "extracted", lambda task, _, flags: Fixed(task, flags))
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert views.main(["--views", "3", "--seeds", "2"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / "views.json").read_text())
    names = [item["task"] for item in document["results"]]
    assert names == ["textile", *(f"textile --views 3 --augment {p}" for p in views.POLICIES)]
    assert document["results"][2]["gain"] == pytest.approx(-0.15)


def test_an_unknown_task_costs_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert views.main(["--tasks", "dogs"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
