from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from losa.errors import InputError
from losa.extract.clips.something import list_something
from losa.extract.datasets import load_dataset
from tests.extract.picture_folder import touch

LABELS = {"Holding something": "1", "Dropping something onto something": "0"}
TRAIN = [
    {"id": "7", "label": "holding a pen", "template": "Holding [something]", "placeholders": ["x"]},
    {"id": "8", "label": "dropping", "template": "Dropping [something] onto [something]"},
]
VAL = [{"id": "9", "template": "Holding [something]"}]


def release(root: Path, folder: str, prefix: str = "", **changes: Any) -> Path:
    files = {"labels": LABELS, "train": TRAIN, "validation": VAL, "test": [{"id": "10"}], **changes}
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (root / folder / f"{prefix}{name}.json").write_text(json.dumps(value))
    return root


@pytest.mark.parametrize(
    ("folder", "prefix", "videos"),
    [("labels", "", "20bn-something-something-v2"), (".", "something-something-v2-", "videos")],
)
def test_classes_are_templates_in_the_order_of_their_numbers(
    folder: str, prefix: str, videos: str, tmp_path: Path
) -> None:
    touch(release(tmp_path / "ssv2", folder, prefix), f"{videos}/7.webm")

    dataset = load_dataset("ssv2", tmp_path, is_clips=True)

    assert dataset.classes == ("Dropping something onto something", "Holding something")
    found = {
        split: [(item.key, item.path, item.label) for item in listed]
        for split, listed in dataset.splits.items()
    }
    assert found == {
        "train": [("7", f"{videos}/7.webm", 1), ("8", f"{videos}/8.webm", 0)],
        "val": [("9", f"{videos}/9.webm", 1)],
        "test": [("10", f"{videos}/10.webm", -1)],
    }


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"train": {"id": "7"}}, "is no list of clips"),
        ({"train": [{"id": "a/b", "template": "x"}]}, r"train.json\[0\]: has no id"),
        ({"train": [{"id": "7", "template": 3}]}, r"train.json\[0\]: has no id, or a template"),
        ({"labels": ["Holding something"]}, "is no object of classes"),
    ],
)
def test_a_damaged_file_is_named(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    touch(release(tmp_path, "labels", **changes), "videos/9.webm")

    with pytest.raises(InputError, match=what):
        list_something(tmp_path)
