"""Claims of losa.live.scout and of the verb, on a random ViT-Ti and three colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from losa.errors import InputError, UsageError
from losa.extract.extraction import ExtractEvent
from losa.features import FeatureSpec
from losa.live.scout import ScoutRequest, scout
from tests.command import Losa
from tests.extract.clips.clip_folder import clip_folder
from tests.extract.picture_folder import picture_folder, tiny_config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("p") / "p", {"train": 8, "val": 3, "test": 2})


def scouted(pictures: Path, out: Path, **changes: Any) -> dict[str, Any]:
    budget, samples = changes.pop("budget", None), changes.pop("samples", 30)
    config = tiny_config(pictures, out / "none.zarr", **changes)
    return scout(ScoutRequest(config, out, samples, budget), progress=lambda _: None)


def test_bytes_are_those_of_a_store_of_the_whole_data_set(pictures: Path, tmp_path: Path) -> None:
    found = scouted(pictures, tmp_path, tokens="pool:2x2", store_dtype="int8", views=3)
    spec = FeatureSpec.from_json(found["features"])
    assert (spec.grid.num_tokens, spec.dtype) == (2, "int8")
    assert found["rows"] == 3 * 24 + 9 + 6
    for one in found["looks"]["cells"]:
        assert one["bytes"] == found["rows"] * spec.with_taps(tuple(one["taps"])).sample_bytes


def test_the_bar_counts_samples_first_and_then_probes_and_tells_no_bytes(
    pictures: Path, tmp_path: Path
) -> None:
    events: list[ExtractEvent] = []
    request = ScoutRequest(tiny_config(pictures, tmp_path / "none.zarr"), tmp_path, 30)
    scout(request, progress=events.append)
    assert {(event.phase, event.unit, event.row_bytes) for event in events} == {
        ("scout", "samples", 0),
        ("probes on summary", "probes", 0),
        ("probes on cells", "probes", 0),
    }


def test_the_same_seed_gives_the_same_result_and_file(pictures: Path, tmp_path: Path) -> None:
    first, again = (scouted(pictures, tmp_path / name) for name in ("one", "two"))
    written = json.loads((tmp_path / "one/scout.json").read_text())
    assert written == first
    same = {name: value for name, value in first.items() if name not in ("out", "plot")}
    assert same.items() <= again.items()


def test_the_flag_that_is_advised_names_the_advised_taps(pictures: Path, tmp_path: Path) -> None:
    from losa.features import resolve_taps

    advice = scouted(pictures, tmp_path)["advice"]
    text = advice["flag"].removeprefix("--taps ")
    assert list(resolve_taps(text, tuple(range(12)))) == advice["taps"]


def test_a_budget_for_less_than_one_tap_is_said_not_to_do(pictures: Path, tmp_path: Path) -> None:
    advice = scouted(pictures, tmp_path, budget=1000)["advice"]
    assert advice["fits_budget"] is False
    assert len(advice["taps"]) == 1


@pytest.mark.parametrize("samples", [19, 20_001])
def test_samples_out_of_range_are_refused(pictures: Path, tmp_path: Path, samples: int) -> None:
    with pytest.raises(UsageError, match="--samples"):
        scouted(pictures, tmp_path, samples=samples)


def test_a_file_in_the_way_of_the_folder_is_refused_before_anything_is_run(
    pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="--out"):
        scouted(pictures, tmp_path / "out")


def test_data_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "p", {"train": 8, "val": 3})
    for path in data.rglob("*.png"):
        path.write_text("<html>")
    with pytest.raises(InputError, match="only 0 samples"):
        scouted(data, tmp_path / "out")


def test_the_verb_prints_the_advice_and_one_json_line(
    losa: Losa, pictures: Path, tmp_path: Path
) -> None:
    found = losa(
        *("scout", "--model", "vit_tiny_patch16_224", "--weights", "random", "--img-size", "32"),
        *("--dataset", f"folder:{pictures}", "--samples", "30", "--num-workers", "0"),
        *("--out", tmp_path, "--device", "cpu", "--budget", "1GB"),
    )
    assert found.code == 0, found.err
    assert f"keep {found.value['advice']['flag']}:" in found.err
    assert "mixing all tokens, as LoSA does, sees more" in found.err


def test_clips_are_scouted_as_pictures_are(losa: Losa, tmp_path: Path) -> None:
    clips = clip_folder(tmp_path / "clips", {"train": 12})
    (clips / "train/a/000.mp4").write_bytes(b"no video")
    found = losa(
        *("scout", "--model", "vit_tiny_patch16_224", "--weights", "random", "--img-size", "32"),
        *("--dataset", f"folder:{clips}", "--samples", "24", "--num-workers", "0"),
        *("--frames", "4", "--frame-stride", "2", "--decoder", "pyav"),
        *("--out", tmp_path / "scout", "--device", "cpu"),
    )
    assert found.code == 0, found.err
    assert found.value["trained"] + found.value["held_out"] == 23
    spec = FeatureSpec.from_json(found.value["features"])
    assert (spec.grid.time, spec.grid.prefix, len(spec.taps)) == (4, 4, 12)
    assert found.value["all_bytes"] == 24 * spec.sample_bytes
    assert {len(one["taps"]) for one in found.value["looks"]["cells"]} >= {1, 2, 12}


def test_a_disk_that_could_not_hold_the_store_does_not_stop_a_scout(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losa.store.space.free_bytes", lambda _: 1)
    assert scouted(pictures, tmp_path)["rows"] > 0
