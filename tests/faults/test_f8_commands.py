"""F8 through ``losa extract``: whatever else is asked for at a store's path, it stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import safetensors.torch
import timm

from losa.errors import MismatchError
from losa.extract import run
from losa.extract.planning import Inputs
from losa.store import layout, open_store
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.faults.figures import publish
from tests.faults.test_f8_identity import altered, disguised, leaves
from tests.store.build import tree

Change = Callable[[Path, Path], dict[str, Any]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("f8"), {"train": 2, "val": 1})


@pytest.fixture(scope="module")
def store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f8") / "s.zarr"
    run.extract(tiny_config(pictures, path))
    return path


def other_weights(_: Path, folder: Path) -> dict[str, Any]:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    safetensors.torch.save_file(model.state_dict(), folder / "other.safetensors")
    return {"weights": str(folder / "other.safetensors")}


def another_label(pictures: Path, folder: Path) -> dict[str, Any]:
    """The same pictures, one of which is now taken for something else."""
    copy = Path(shutil.copytree(pictures, folder / "pictures"))
    (copy / "train/red/001.png").rename(copy / "train/blue/002.png")
    return {"dataset": f"folder:{copy}"}


def another_data_set(_: Path, folder: Path) -> dict[str, Any]:
    copy = picture_folder(folder / "others", {"train": 2, "val": 1})
    for split in copy.iterdir():
        (split / "red").rename(split / "violet")
    return {"dataset": f"folder:{copy}"}


def flags(**changes: Any) -> Change:
    return lambda *_: changes


FLAGS: Final[dict[str, tuple[Change, str]]] = {
    "--model": (flags(model="vit_small_patch16_224"), "backbone.model"),
    "--weights": (other_weights, "backbone.weights"),
    "a label": (another_label, "dataset.splits.train.listing"),
    "--img-size": (flags(img_size=48), "preprocessing.img_size"),
    "--taps": (flags(taps="1,11"), "features.taps"),
    "--tokens": (flags(tokens="summary"), "backbone.tokens"),
    "--store-dtype": (flags(store_dtype="int8"), "features.dtype"),
    "--seed": (flags(seed=1), "order_seed"),
    "--shard-rows": (flags(shard_rows=8), "shard_rows"),
    "--split": (flags(split=("train",)), "dataset.splits.val"),
    "calibration_rows": (flags(calibration_rows=3), "calibration_rows"),
    "--dataset": (another_data_set, "dataset.classes"),
    "--device": (flags(amp_dtype="bfloat16"), "autocast"),
}
QUICK: Final = ("--weights", "a label", "calibration_rows")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.faults]) for n in FLAGS],
)
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "begun"])
def test_another_extraction_at_the_same_path_is_refused_by_field_and_changes_nothing(
    store: Path, pictures: Path, tmp_path: Path, name: str, is_sealed: bool
) -> None:
    change, field = FLAGS[name]
    path = Path(shutil.copytree(store, tmp_path / "s.zarr"))
    if not is_sealed:
        (path / layout.SEALED_OBJECT).unlink()
        (path / layout.commit_object("train", 0)).unlink()
    before = tree(path)
    config = tiny_config(pictures, path, **change(pictures, tmp_path))
    with pytest.raises(MismatchError, match=rf"{field}.*: ") as caught:
        run.extract(config)
    assert caught.value.exit_code == 5
    assert tree(path) == before
    assert [entry.name for entry in tmp_path.glob(".s.zarr*")] == []


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_every_field_of_the_identity_is_refused_by_the_extraction_itself(
    store: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    path = Path(shutil.copytree(store, memory / "s.zarr"))
    plan = open_store(path).plan
    before, touched = tree(path), path.stat().st_mtime_ns
    config = tiny_config(memory, path)
    inputs = object.__new__(Inputs)
    object.__setattr__(inputs, "config", config)
    monkeypatch.setattr(run, "gather_inputs", lambda *_, **__: inputs)
    places, refused, changed = list(leaves(plan.identity)), 0, 0
    for place in places:
        other = disguised(plan, altered(plan.identity, place))
        monkeypatch.setattr(run, "wanted_plan", lambda _, other=other: other)
        with pytest.raises(MismatchError, match=rf"{'.'.join(place)}: ") as caught:
            run.extract(config)
        assert caught.value.exit_code == 5
        refused += 1
        changed += tree(path) != before
    assert changed == 0
    assert path.stat().st_mtime_ns == touched
    if is_whole:
        publish("f8", {"fields": len(places), "refused": refused, "changed": changed})
