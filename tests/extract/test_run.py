"""Claims of losa.extract.run: the store holds what the live backbone computes, come what may."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from losa.adapt.loader import FeatureLoader
from losa.adapt.ring import RingOptions, ring_on
from losa.config import ExtractConfig
from losa.errors import (
    InputError,
    MismatchError,
    ResourceError,
    SkippedError,
)
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.images import load_pixels
from losa.extract.planning import wanted_plan
from losa.extract.run import check_skips, extract
from losa.extract.vit import ViTBackbone
from losa.features import StoreDtype
from losa.store import Store, create_store, layout, open_store
from losa.store.verify import verify_store
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.store.build import tree

COUNTS = {"train": 7, "val": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), COUNTS)


@pytest.fixture(scope="module")
def sealed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "s.zarr"
    extract(tiny_config(pictures, path))
    return path


@pytest.fixture
def store(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "s.zarr"))


def cached(store: Store, split: str) -> torch.Tensor:
    """All decoded planes ``[k n l d]`` of a split."""
    reader = store.split(split)
    with ring_on(store, store.spec.taps, RingOptions(reader.rows, torch.device("cpu"))) as ring:
        loader = FeatureLoader(reader, np.arange(reader.rows), ring)
        return torch.cat([loader.decode(batch) for batch in loader.epoch(0)], dim=1)


def live(pictures: Path, store: Store, split: str) -> torch.Tensor:
    """The same planes from the backbone, one image at a time."""
    request = BackboneRequest("vit_tiny_patch16_224", "random", 32, "2,11")
    backbone = build_backbone(request, device=torch.device("cpu"), amp_dtype=None)
    reader = store.split(split)
    paths = [pictures / reader.samples[index].path for index in reader.source_index]
    pixels = [load_pixels(path, backbone.preprocessing) for path in paths]
    planes = [torch.stack(backbone(torch.from_numpy(item[None]))) for item in pixels]
    return torch.cat(planes, dim=1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 1e-2), ("int8", 1e-2)],
)
def test_cached_planes_equal_live_planes(
    pictures: Path, tmp_path: Path, dtype: StoreDtype, tolerance: float
) -> None:
    extract(tiny_config(pictures, tmp_path / "s.zarr", store_dtype=dtype))
    store = open_store(tmp_path / "s.zarr")
    for split in store.splits:
        want = live(pictures, store, split)
        torch.testing.assert_close(
            cached(store, split), want, rtol=tolerance, atol=tolerance * float(want.abs().max())
        )


def test_labels_are_those_of_the_folders(sealed: Path) -> None:
    store = open_store(sealed)
    for split in store.splits:
        reader = store.split(split)
        for row, index in enumerate(reader.source_index):
            folder = Path(reader.samples[index].path).parent.name
            assert store.classes[reader.labels[row]] == folder


def test_calibration_is_that_of_the_first_rows_of_train(sealed: Path, pictures: Path) -> None:
    store = open_store(sealed)
    planes = live(pictures, store, "train")[:, :8].double()
    found = store.calibration(store.spec.taps)
    np.testing.assert_allclose(found.mean, planes.mean((1, 2)), rtol=1e-4, atol=1e-5)
    std = (planes - planes.mean((1, 2), keepdim=True)).square().mean((1, 2)).sqrt()
    np.testing.assert_allclose(found.std, std, rtol=1e-4, atol=1e-5)


def test_the_same_command_again_computes_nothing(store: Path, pictures: Path) -> None:
    before = tree(store)
    result = extract(tiny_config(pictures, store))
    assert result["computed_rows"] == 0
    assert result["store_id"] == open_store(store).store_id
    assert tree(store) == before


def test_workers_and_durability_do_not_change_a_byte(
    sealed: Path, pictures: Path, tmp_path: Path
) -> None:
    config = tiny_config(pictures, tmp_path / "s.zarr", num_workers=2, durability="full")
    extract(config)
    assert tree(tmp_path / "s.zarr") == tree(sealed)


@pytest.mark.parametrize("name", ["tokens/tap02/c.3.0.0", "check/tap11/c.3"])
def test_an_uncommitted_leftover_of_a_killed_process_is_written_anew(
    sealed: Path, store: Path, pictures: Path, name: str
) -> None:
    (store / layout.SEALED_OBJECT).unlink()
    (store / layout.commit_object("train", 3)).unlink()
    (store / "train" / name).write_bytes(b"cut")
    assert extract(tiny_config(pictures, store))["computed_rows"] == 4
    assert tree(store) == tree(sealed)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty record"])
def test_a_committed_shard_that_a_power_cut_left_incomplete_is_computed_again(
    sealed: Path, store: Path, pictures: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    (store / layout.SEALED_OBJECT).unlink()
    if damage == "missing":
        (store / "train/tokens/tap02/c.0.0.0").unlink()
    elif damage == "cut":
        (store / "train/check/tap11/c.0").write_bytes(b"")
    else:
        (store / layout.commit_object("train", 0)).write_bytes(b"")
    assert extract(tiny_config(pictures, store))["computed_rows"] == 4
    assert "shard 0 of train is computed again" in caplog.text
    assert tree(store) == tree(sealed)


def test_who_loses_the_race_of_creation_joins_the_winner(
    sealed: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"

    def lose(*arguments: Any) -> None:
        create_store(*arguments, durable=False)  # the winner's
        create_store(*arguments, durable=False)

    monkeypatch.setattr("losa.extract.run.create_store", lose)
    extract(tiny_config(pictures, path))
    assert tree(path) == tree(sealed)


def test_who_loses_the_race_of_creation_to_another_plan_is_refused(
    sealed: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"

    def lose(*arguments: Any) -> None:
        shutil.copytree(sealed, path)
        create_store(*arguments, durable=False)

    monkeypatch.setattr("losa.extract.run.create_store", lose)
    with pytest.raises(MismatchError, match=r"holds another plan.*taps"):
        extract(tiny_config(pictures, path, taps="last"))
    assert tree(path) == tree(sealed)


def test_a_sealed_store_is_never_written_again(
    store: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, store_id = tree(store), open_store(store).store_id
    monkeypatch.setattr(
        "losa.extract.run.wanted_plan",
        lambda inputs: replace(wanted_plan(inputs), writer="losa 9.9.9"),
    )
    assert extract(tiny_config(pictures, store))["store_id"] == store_id
    assert tree(store) == before


def test_a_store_whose_empty_folders_were_dropped_is_resumed(
    sealed: Path, store: Path, pictures: Path
) -> None:
    (store / layout.SEALED_OBJECT).unlink()
    shutil.rmtree(store / ".losa/claims")
    shutil.rmtree(store / layout.TMP_FOLDER)
    shutil.rmtree(store / ".losa/commits/val")
    extract(tiny_config(pictures, store))
    assert tree(store) == tree(sealed)


CHANGED: dict[str, dict[str, Any]] = {
    "taps": {"taps": "1,11"},
    "img_size": {"img_size": 48},
    "tokens": {"tokens": "summary"},
    "dtype": {"store_dtype": "float32"},
    "splits": {"split": ("train",)},
    "order_seed": {"seed": 1},
    "shard_rows": {"shard_rows": 8},
}


@pytest.mark.parametrize("field", CHANGED)
def test_another_extraction_into_the_same_store_is_refused_and_changes_nothing(
    store: Path, pictures: Path, field: str
) -> None:
    before = tree(store)
    with pytest.raises(MismatchError, match=rf"holds another plan.*{field}") as caught:
        extract(tiny_config(pictures, store, **CHANGED[field]))
    assert caught.value.exit_code == 5
    assert tree(store) == before


def test_a_changed_listing_is_refused(store: Path, pictures: Path, tmp_path: Path) -> None:
    grown = Path(shutil.copytree(pictures, tmp_path / "grown"))
    shutil.copy(grown / "train/red/000.png", grown / "train/red/999.png")
    with pytest.raises(MismatchError, match=r"splits\.train\.listing"):
        extract(tiny_config(grown, store))


def test_the_stores_own_batch_size_wins_on_resume(
    sealed: Path, store: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (store / layout.SEALED_OBJECT).unlink()
    (store / layout.commit_object("train", 0)).unlink()
    extract(tiny_config(pictures, store, batch_size=3))
    assert tree(store) == tree(sealed)
    assert "4 is the store's own; 3 is not used" in caplog.text


def test_a_store_reached_through_a_link_or_from_inside_is_the_same_store(
    store: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.zarr").symlink_to(store)
    assert extract(tiny_config(pictures, tmp_path / "link.zarr"))["computed_rows"] == 0
    extract(tiny_config(pictures, tmp_path / "link.zarr", taps="last", overwrite=True))
    assert open_store(store).spec.taps == (11,)
    monkeypatch.chdir(store)
    assert extract(tiny_config(pictures, Path(), taps="last"))["computed_rows"] == 0


def test_strange_names_work(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "a 'b' \U0001f642 -c.zarr"
    extract(tiny_config(pictures, path, split=("val",)))
    assert open_store(path).splits == ("val",)


@pytest.fixture
def broken(pictures: Path, tmp_path: Path) -> Path:
    """The pictures, one of which is cut short."""
    copy = Path(shutil.copytree(pictures, tmp_path / "broken"))
    victim = copy / "train/green/004.png"
    victim.write_bytes(victim.read_bytes()[:60])
    return copy


def test_a_broken_image_ends_the_run_by_name(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train/green/004\.png: .*; mend or remove it") as caught:
        extract(tiny_config(broken, tmp_path / "s.zarr"))
    assert caught.value.exit_code == 3


def test_a_skipped_image_is_a_recorded_row_and_its_neighbours_do_not_change(
    sealed: Path, broken: Path, tmp_path: Path
) -> None:
    # Calibration must not see the missing image, or neighbours could change through the exponents.
    path = tmp_path / "s.zarr"
    result = extract(tiny_config(broken, path, on_error="skip", max_skip=0.5))
    assert result["skipped"] == 1
    store, whole = open_store(path), open_store(sealed)
    status = store.split("train").status
    (row,) = np.flatnonzero(status != 1)
    index = store.split("train").source_index[row]
    assert store.split("train").samples[index].path == "train/green/004.png"
    others = np.flatnonzero(status == 1)
    torch.testing.assert_close(
        cached(store, "train")[:, others], cached(whole, "train")[:, others], rtol=0, atol=0
    )
    assert not cached(store, "train")[:, row].any()
    assert verify_store(path) == []


def test_more_skips_than_allowed_is_exit_8_with_everything_written(
    broken: Path, tmp_path: Path
) -> None:
    config = tiny_config(broken, tmp_path / "s.zarr", on_error="skip")
    result = extract(config)
    with pytest.raises(SkippedError, match=r"1 of 27 samples were skipped") as caught:
        check_skips(config, result)
    assert caught.value.exit_code == 8
    assert open_store(tmp_path / "s.zarr").split("train").rows == 21
    check_skips(config.model_copy(update={"max_skip": 0.5}), result)


def test_a_full_disk_is_refused_before_the_first_row(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise ResourceError(path, "1.0 GB needed, 0.0 GB free on its disk")

    monkeypatch.setattr("losa.extract.preflight.check_room", full)
    with pytest.raises(ResourceError):
        extract(tiny_config(pictures, tmp_path / "s.zarr"))
    assert list(tmp_path.iterdir()) == []


def test_a_single_sample_is_enough_for_a_split(tmp_path: Path) -> None:
    folder = tmp_path / "data/train/only"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / "one.png")
    extract(tiny_config(tmp_path / "data", tmp_path / "s.zarr"))
    assert open_store(tmp_path / "s.zarr").split("train").rows == 1


def _extract_to_the_end(config: ExtractConfig) -> None:
    torch.set_num_threads(1)
    extract(config)


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    # A fork server that has imported torch once: a process then starts in milliseconds.
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["losa.extract.run", "tests.extract.test_run"])
    return context


@pytest.mark.parametrize("least", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_then_resumed_gives_the_same_bytes(
    sealed: Path,
    pictures: Path,
    tmp_path: Path,
    processes: multiprocessing.context.ForkServerContext,
    least: int,
) -> None:
    def start(path: Path) -> multiprocessing.context.ForkServerProcess:
        config = tiny_config(pictures, path, durability="full")
        process = processes.Process(target=_extract_to_the_end, args=(config,))
        process.start()
        return process

    start(tmp_path / "warm-up.zarr").join()
    started = time.monotonic()
    start(tmp_path / "timing.zarr").join()
    duration = time.monotonic() - started
    draw = random.Random(0)
    kills, lost, found = 0, [], []
    while kills < least:
        path = tmp_path / f"{kills}.zarr"
        committed = 0
        for _ in range(draw.randint(1, 3)):
            process = start(path)
            process.join(draw.uniform(0, duration))
            kills += process.is_alive()
            process.kill()
            process.join()
            now = len(list(path.glob(".losa/commits/*/*")))
            lost.append(len(list(path.glob(".losa/tmp/*"))))
            found.append(now)
            assert now >= committed
            committed = now
        start(path).join()
        assert tree(path) == tree(sealed)
    # Unfinished payloads, one a tap and perhaps a small file, belong to one shard at the most.
    assert max(lost) <= 3
    # Of a few that is luck.
    assert least < 20 or any(0 < count < 8 for count in found), "none between two commits"


def test_a_feature_that_is_not_finite_names_its_sample_and_tap_also_in_calibration(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = ViTBackbone.__call__

    def broken(self: ViTBackbone, pixels: torch.Tensor) -> list[torch.Tensor]:
        planes = encode(self, pixels)
        planes[1][2, 0, 0] = torch.nan
        return planes

    monkeypatch.setattr(ViTBackbone, "__call__", broken)
    with pytest.raises(InputError, match=r"\.png: its features at tap 11 do not fit float16"):
        extract(tiny_config(pictures, tmp_path / "s.zarr"))
    assert not (tmp_path / "s.zarr").exists()
