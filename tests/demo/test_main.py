from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import demo.__main__ as program
from demo.command import CommandFailedError
from demo.convert import Agreement

ANSWERS: dict[str, dict[str, Any]] = {
    "adapt": {
        "metrics": {"val": {"top1": 0.75}},
        "timing": {"seconds": 1.0},
        "parameters": {"trainable": 4321},
    },
    "evaluate": {"top1": 0.625},
    "predict": {
        "predictions": [{"path": "x", "top": [{"class": "cat", "probability": 0.9}]}],
        "cache_check": {"compared": 1, "max_abs_difference": 0.001, "same_classes": True},
    },
}


def fake(monkeypatch: pytest.MonkeyPatch, splits: tuple[str, ...]) -> list[str]:
    """Replace conversion and commands; returns the verbs as they are run."""
    verbs: list[str] = []

    def losa(verb: str, *_: str) -> dict[str, Any]:
        verbs.append(verb)
        extracted = {"splits": {name: {} for name in splits}, "bytes": 3_000_000, "seconds": 2.0}
        return ANSWERS.get(verb, extracted)

    monkeypatch.setattr(program, "losa", losa)
    monkeypatch.setattr(program, "fetch", lambda *_: Path())
    monkeypatch.setattr(program, "convert", lambda *_: [Agreement("norm", 1e-6, 0.1)])
    return verbs


def pictures(folder: Path, *splits: str) -> Path:
    for split in splits:
        (folder / split / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / split / "cat" / "1.png")
    return folder


def test_the_demo_runs_every_verb_and_ends_with_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs = fake(monkeypatch, ("train", "val", "test"))
    folder = pictures(tmp_path / "pets", "train", "val", "test")
    assert program.main(["--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert verbs == ["extract", *["adapt", "evaluate"] * 3, "predict"]
    out = capsys.readouterr().out
    assert "linear-all         75.0          62.5" in out
    assert "losa says cat (90.0 %)" in out
    assert "the same logits to 1.0e-03" in out


def test_without_a_test_split_the_demo_says_that_it_reports_val(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs = fake(monkeypatch, ("train", "val"))
    folder = pictures(tmp_path / "pets", "train", "val")
    assert program.main(["--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "evaluate" not in verbs
    assert "there is no test split" in capsys.readouterr().out


def test_a_folder_that_is_not_there_costs_one_line_and_exit_code_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert program.main(["--data", str(tmp_path / "nowhere")]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_failed_command_ends_the_demo_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(*_: str) -> dict[str, Any]:
        raise CommandFailedError(6)

    fake(monkeypatch, ("train",))
    monkeypatch.setattr(program, "losa", failing)
    folder = pictures(tmp_path / "pets", "train")
    assert program.main(["--data", str(folder), "--out", str(tmp_path)]) == 6


@pytest.mark.parametrize("failing", ["extract", "adapt"])
def test_a_mismatch_is_answered_once_with_overwrite(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    failing: str,
) -> None:
    fake(monkeypatch, ("train",))
    answer: Callable[..., dict[str, Any]] = vars(program)["losa"]
    seen: list[tuple[str, ...]] = []

    def losa(*words: str) -> dict[str, Any]:
        seen.append(words)
        if words[0] == failing and words[-1] != "--overwrite":
            raise CommandFailedError(5)
        return answer(*words)

    monkeypatch.setattr(program, "losa", losa)
    folder = pictures(tmp_path / "pets", "train")
    assert program.main(["--data", str(folder), "--out", str(tmp_path)]) == 0
    again = [words for words in seen if words[-1] == "--overwrite"]
    assert [words[:-1] for words in again] == [
        words for words in seen if words[0] == failing and words not in again
    ]
    assert capsys.readouterr().out.count("once more, with --overwrite") == len(again)


def test_a_mismatch_that_overwriting_does_not_mend_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def failing(*words: str) -> dict[str, Any]:
        calls.append(words)
        raise CommandFailedError(5)

    fake(monkeypatch, ("train",))
    monkeypatch.setattr(program, "losa", failing)
    folder = pictures(tmp_path / "pets", "train")
    assert program.main(["--data", str(folder), "--out", str(tmp_path)]) == 5
    assert len(calls) == 2


def test_outputs_are_named_by_place_and_size_and_those_of_the_named_data_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = program._name
    a, b = tmp_path / "a/photos", tmp_path / "b/photos"
    names = {name(str(a), a, 112), name(str(b), b, 112), name(str(a), a, 224)}
    assert len(names) == 3
    assert all(item.startswith("photos-") and len(item) == len("photos-") + 8 for item in names)
    monkeypatch.chdir(tmp_path)
    assert name("a/photos", Path("a/photos"), 112) == name(str(a), a, 112)
    assert name("mnist", tmp_path / "mnist", 112) == "mnist"


def test_an_unreadable_picture_has_no_part_in_the_check_of_the_backbone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    verbs = fake(monkeypatch, ("train",))
    folder = pictures(tmp_path / "pets", "train")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    # The commands say what they think of it, in one line.
    assert program.main(["--data", str(folder), "--out", str(tmp_path)]) == 0
    assert verbs[0] == "extract"
