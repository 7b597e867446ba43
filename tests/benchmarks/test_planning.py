from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import planning
from tests.benchmarks.conftest import Published


@pytest.mark.parametrize(("predicted", "is_hit"), [(8.1, True), (7.4, False), (12.6, False)])
def test_a_prediction_within_a_quarter_of_the_real_time_is_a_hit(
    monkeypatch: pytest.MonkeyPatch, published: Published, predicted: float, is_hit: bool
) -> None:
    said: list[tuple[str, ...]] = []

    def losa(*words: str) -> tuple[float, dict[str, Any]]:
        said.append(words)
        store = Path(words[words.index("--store") + 1])
        if words[0] == "extract":
            store.mkdir()
            store.with_name(f"{store.name}.extract.json").touch()
        return 10.0, {"probe": {"predicted_seconds": predicted}}

    monkeypatch.setattr(planning, "losa", losa)
    assert planning.main(["--images", "3", "--rounds", "2"]) == 0
    document = published("planning")
    assert document["off"] == pytest.approx(predicted / 10 - 1)
    assert document["hits"] == {"within 25%": is_hit}
    assert [words[0] for words in said] == ["plan", "extract"] * 2
    assert said[0][1:-1] == said[1][1:]
    assert said[0][-1] == "--probe"


def test_the_pictures_are_jpegs_of_the_usual_size_in_ten_classes(tmp_path: Path) -> None:
    root = planning.write_pictures(tmp_path / "p", 12)
    files = sorted(root.glob("train/*/*.jpg"))
    assert (len(files), len({file.parent for file in files})) == (12, 10)
    with Image.open(files[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (500, 375))
