"""The demo's flow by the real command line; only the backbone is a tiny random one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import demo.__main__ as program
from demo.command import CommandFailedError
from losa import cli
from tests.extract.picture_folder import picture_folder

Answers = list[tuple[tuple[str, ...], dict[str, Any]]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answers:
    """Run the commands in this process; what was asked, and what they printed, is kept."""
    seen: Answers = []

    def losa(*words: str) -> dict[str, Any]:
        here = ("-j", "0", "-b", "4") if words[0] == "extract" else ()
        given = ["vit_tiny_patch16_224" if word == "dinov2_s" else word for word in words]
        monkeypatch.setattr(sys, "argv", ["losa", *given, *here])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        if ended.value.code != 0:
            assert isinstance(ended.value.code, int)
            raise CommandFailedError(ended.value.code)
        seen.append((words, json.loads(capsys.readouterr().out.splitlines()[-1])))
        return seen[-1][1]

    monkeypatch.setattr(program, "losa", losa)
    monkeypatch.setattr(program, "prepare", lambda _: "random")
    return seen


def by_verb(answers: Answers, verb: str) -> list[dict[str, Any]]:
    return [answer for words, answer in answers if words[0] == verb]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Path], int]:
    out = ("--out", str(tmp_path / "out"), "--img-size", "32")
    return lambda folder: program.main(["--data", str(folder), *out])


@pytest.mark.slow
def test_the_demo_can_be_repeated_and_then_computes_nothing(
    answers: Answers, run: Callable[[Path], int], tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "a/photos", {"train": 4, "val": 2, "test": 2})
    assert run(folder) == 0
    first = list(answers)
    answers.clear()
    assert run(folder) == 0
    assert [words for words, _ in answers] == [words for words, _ in first]
    assert by_verb(first, "extract")[0]["computed_rows"] == 24
    assert by_verb(answers, "extract")[0]["computed_rows"] == 0
    for verb in ("adapt", "evaluate"):
        assert by_verb(answers, verb) == by_verb(first, verb)
        assert len(by_verb(first, verb)) == 3
    assert by_verb(first, "predict")[0]["cache_check"]["compared"] == 1

    # One more picture makes another data set in the same place.
    Image.new("RGB", (32, 32)).save(folder / "train/red/more.png")
    answers.clear()
    assert run(folder) == 0
    assert by_verb(answers, "extract")[0]["splits"]["train"]["rows"] == 13

    # Another folder of the same name has a place of its own.
    answers.clear()
    assert run(picture_folder(tmp_path / "b/photos", {"train": 4, "test": 2})) == 0
    assert not any("--overwrite" in words for words, _ in answers)
    stores = sorted((tmp_path / "out").glob("photos-*.zarr"))
    assert len(stores) == 2
