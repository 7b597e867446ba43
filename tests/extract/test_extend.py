"""Claims of losa.extract.extend: a store that was extended is the store extracted in one go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from losa.errors import InputError, MismatchError, StoreError, UsageError
from losa.extract.extraction import ExtractEvent
from losa.extract.run import extract
from losa.features import StoreDtype
from losa.store import layout, open_store, system
from losa.store.extending import extension_of
from losa.store.verify import verify_store
from tests.extract.extending import StopError, extending, stop_after
from tests.extract.picture_folder import tiny_config
from tests.store.build import tree

BOTH = ("train", "val")

pytestmark = pytest.mark.usefixtures("quick_backbones")


@pytest.mark.parametrize("changes", [{"split": ("train",)}, {"taps": "0"}])
def test_a_store_of_views_is_extended_without_being_told_of_them(
    pictures: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    at, went = tmp_path / "s.zarr", tmp_path / "one/s.zarr"
    views = {"views": 3, "augment": "crop-flip"}
    begun = ("val",) if "split" in changes else BOTH
    extract(tiny_config(pictures, at, split=begun, calibration_rows=2, **views))
    extract(extending(pictures, at, **changes))
    assert open_store(at).plan.splits["train"].rows == 63
    assert verify_store(at) == []
    if "taps" in changes:
        wanted = tiny_config(pictures, went, taps="0,2,11", calibration_rows=2, **views)
        extract(wanted)
        assert tree(at) == tree(went)


def test_views_are_fixed_once_a_store_has_some(pictures: Path, store: Path) -> None:
    with pytest.raises(MismatchError, match=r"cannot be extended.*views: 2 / 1"):
        extract(extending(pictures, store, taps="0", views=2))


EXTENSIONS: dict[str, dict[str, Any]] = {
    "a split": {"split": ("val",)},
    "taps": {"taps": "0"},
    "taps above and between": {"taps": "every:4"},
    "taps and a split": {"taps": "0,5", "split": ("val",)},
    "every split": {"split": None},
}
QUICK = ("a split", "taps and a split")
"""The others add taps alone, or a split by another name for it."""


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(
            pytest.param(kind, "float16", marks=() if kind in QUICK else pytest.mark.slow)
            for kind in EXTENSIONS
        ),
        ("taps and a split", "int8"),
    ],
)
def test_an_extended_store_equals_one_extracted_in_one_go(
    pictures: Path, tmp_path: Path, kind: str, dtype: StoreDtype
) -> None:
    changes = EXTENSIONS[kind]
    at, went = tmp_path / "s.zarr", tmp_path / "one/s.zarr"
    extract(tiny_config(pictures, at, split=("train",), store_dtype=dtype))
    result = extract(extending(pictures, at, **changes))
    taps = {"0": "0,2,11", "every:4": "2,3,7,11", "0,5": "0,2,5,11"}.get(changes.get("taps", ""))
    splits = BOTH if "split" in changes else ("train",)
    extract(tiny_config(pictures, went, split=splits, store_dtype=dtype, taps=taps or "2,11"))
    assert tree(at) == tree(went)
    assert result["store_id"] == open_store(at).store_id
    assert result["computed_rows"] == (6 if "split" in changes else 0) + (21 if taps else 0)
    assert verify_store(at) == []
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_features_that_are_there_are_neither_computed_nor_copied(
    store: Path, pictures: Path
) -> None:
    old = {name: (store / name).stat().st_ino for name in tree(store) if "/tokens/tap" in name}
    told: list[ExtractEvent] = []
    extract(extending(pictures, store, taps="0", split=None), progress=told.append)
    assert all(
        (store / name).stat().st_ino == number for name, number in old.items() if "c." in name
    )
    assert {event.phase for event in told} == {"calibrate", "extract"}


def test_what_is_there_already_is_not_extended(
    store: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, store_id = tree(store), open_store(store).store_id
    result = extract(extending(pictures, store, taps="last", split=("train",)))
    assert (result["computed_rows"], result["store_id"]) == (0, store_id)
    assert "nothing to add" in caplog.text
    assert tree(store) == before


OTHERWISE: dict[str, dict[str, Any]] = {
    "features.dtype": {"store_dtype": "float32"},
    "backbone.tokens": {"tokens": "summary"},
    "preprocessing.img_size": {"img_size": 48},
    "order_seed": {"seed": 1},
    "shard_rows": {"shard_rows": 8},
    "calibration_rows": {"calibration_rows": 9},
    "backbone.model": {"model": "vit_small_patch16_224"},
}


@pytest.mark.parametrize("field", OTHERWISE)
def test_only_taps_and_splits_can_be_added(store: Path, pictures: Path, field: str) -> None:
    before = tree(store)
    with pytest.raises(MismatchError, match=rf"cannot be extended.*{field}") as caught:
        extract(extending(pictures, store, **{"split": BOTH, **OTHERWISE[field]}))
    assert caught.value.exit_code == 5
    assert tree(store.parent / "s.zarr") == before
    assert [entry.name for entry in store.parent.iterdir()] == ["s.zarr"]


def test_a_changed_listing_is_refused(store: Path, pictures: Path, tmp_path: Path) -> None:
    grown = Path(shutil.copytree(pictures, tmp_path / pictures.name))
    shutil.copy(grown / "train/red/000.png", grown / "train/red/999.png")
    with pytest.raises(MismatchError, match=r"splits\.train\.listing"):
        extract(extending(grown, store, split=BOTH))


def test_a_data_set_without_a_split_of_the_store_is_refused(
    store: Path, pictures: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(pictures, tmp_path / "o" / pictures.name))
    shutil.rmtree(other / "train")
    with pytest.raises(MismatchError, match=r"has the split 'train', and .* has not"):
        extract(extending(other, store, split=None))


def test_another_numerics_class_is_refused_unless_told_otherwise(
    store: Path, pictures: Path
) -> None:
    amp = {"amp_dtype": "bfloat16", "taps": "0"}
    with pytest.raises(MismatchError, match=r"numerics class.*autocast"):
        extract(extending(pictures, store, **amp))
    extract(extending(pictures, store, **amp, allow_mixed_numerics=True))
    assert open_store(store).spec.taps == (0, 2, 11)


def test_the_stores_own_batch_size_is_kept(store: Path, pictures: Path, large: Path) -> None:
    extract(extending(pictures, store, taps="0", split=None, batch_size=3))
    assert tree(store) == tree(large)


def test_an_unsealed_store_is_refused_with_the_way_to_finish_it(
    store: Path, pictures: Path
) -> None:
    (store / layout.SEALED_OBJECT).unlink()
    with pytest.raises(
        StoreError, match="without --extend, with --taps 2,11 --split train"
    ) as caught:
        extract(extending(pictures, store, split=BOTH))
    assert caught.value.exit_code == 4


def test_there_must_be_a_store(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        extract(extending(pictures, tmp_path / "s.zarr"))


def test_extend_and_overwrite_do_not_go_together(store: Path, pictures: Path) -> None:
    with pytest.raises(UsageError, match="--extend: does not go with --overwrite"):
        extract(extending(pictures, store, overwrite=True))


def test_without_the_flag_more_taps_or_splits_are_refused_and_the_flag_is_offered(
    store: Path, pictures: Path
) -> None:
    for more in ({"split": BOTH}, {"split": ("train",), "taps": "0,2,11"}):
        with pytest.raises(MismatchError, match="add them with --extend"):
            extract(tiny_config(pictures, store, **more))
    with pytest.raises(MismatchError) as caught:
        extract(tiny_config(pictures, store, split=("train",), taps="last"))
    assert "--extend" not in str(caught.value)


# What the old store skipped.


@pytest.fixture
def holed(pictures: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Pictures of which one was cut short, and their store of one split."""
    copy = Path(shutil.copytree(pictures, tmp_path / pictures.name))
    victim = copy / "train/green/004.png"
    victim.write_bytes(victim.read_bytes()[:60])
    config = tiny_config(
        copy, tmp_path / "s.zarr", split=("train",), on_error="skip", calibration_rows=21
    )
    extract(config)
    return copy, config.store


@pytest.mark.parametrize("is_mended", [False, True])
def test_a_row_skipped_then_is_skipped_now_for_the_same_reason(
    holed: tuple[Path, Path], pictures: Path, tmp_path: Path, is_mended: bool
) -> None:
    copy, store = holed
    whole = tmp_path / "one/s.zarr"
    extract(tiny_config(copy, whole, taps="0,2,11", on_error="skip", calibration_rows=21))
    if is_mended:
        shutil.copy(pictures / "train/green/004.png", copy / "train/green/004.png")
    extract(extending(copy, store, taps="0", split=BOTH, max_skip=1.0))
    assert tree(store) == tree(whole)


def test_a_row_that_was_fine_then_and_cannot_be_read_now_is_named(
    holed: tuple[Path, Path], small: Path, tmp_path: Path
) -> None:
    copy, _ = holed
    store = Path(shutil.copytree(small, tmp_path / "t.zarr"))
    before = tree(store)
    with pytest.raises(
        InputError, match=r"green/004\.png: .*readable when the other taps"
    ) as caught:
        extract(extending(copy, store, taps="0", on_error="skip"))
    assert caught.value.exit_code == 3
    assert tree(store) == before


# Calibration that looked at another split than one go would.


def test_new_taps_are_calibrated_where_the_old_ones_were(pictures: Path, tmp_path: Path) -> None:
    at, alone = tmp_path / "s.zarr", tmp_path / "val.zarr"
    extract(tiny_config(pictures, at, split=("val",)))
    extract(extending(pictures, at, split=("train",)))
    extract(extending(pictures, at, taps="0"))
    extract(tiny_config(pictures, alone, split=("val",), taps="0,2,11"))
    calibration = {name: data for name, data in tree(alone).items() if name.startswith("calib/")}
    assert {name: tree(at)[name] for name in calibration} == calibration
    assert open_store(at).plan.calibration_split == "val"
    assert verify_store(at) == []


# Interruptions.


@pytest.mark.parametrize(
    "moment", [(4, "calibrate"), (0, "extract"), (4, "extract"), (26, "extract")]
)
def test_an_interrupted_extension_leaves_the_old_store_and_goes_on_with_the_same_command(
    store: Path, pictures: Path, large: Path, moment: tuple[int, str]
) -> None:
    before, config = tree(store), extending(pictures, store, taps="0", split=None)
    with pytest.raises(StopError):
        extract(config, progress=stop_after(*moment))
    assert tree(store) == before
    assert verify_store(store) == []
    left = rows_without_a_commit(extension_of(store))
    # What was told is written; of it the last shard may not be committed.
    told = moment[0] if moment[1] == "extract" else 0
    assert left <= min(27, 27 + 4 - told)
    assert left == 27 or told
    assert extract(config)["computed_rows"] == left
    assert tree(store) == tree(large)


def rows_without_a_commit(path: Path) -> int:
    """Rows of both splits in shards of four that have no commit record."""
    missing = 0
    for split, rows in (("train", 21), ("val", 6)):
        for shard, first in enumerate(range(0, rows, 4)):
            is_there = (path / layout.commit_object(split, shard)).exists()
            missing += 0 if is_there else min(4, rows - first)
    return missing


def test_another_extension_does_not_take_over_one_that_was_begun(
    store: Path, pictures: Path, large: Path
) -> None:
    with pytest.raises(StopError):
        extract(extending(pictures, store, taps="0", split=None), progress=stop_after(4, "extract"))
    with pytest.raises(MismatchError, match=r"another extension that was begun .*features\.taps"):
        extract(extending(pictures, store, taps="1", split=None))
    extract(extending(pictures, store, taps="0", split=None))
    assert tree(store) == tree(large)


@pytest.mark.parametrize("extend", [True, False])
def test_a_swap_that_stopped_between_two_renames_is_finished_by_the_next_extraction(
    store: Path, pictures: Path, large: Path, monkeypatch: pytest.MonkeyPatch, extend: bool
) -> None:
    class Stops(system.System):
        def exchange(self, *_: Path) -> None:
            raise OSError(22, "Invalid argument")

        def rename(self, source: Path, target: Path) -> None:
            if target == store:
                raise StopError
            super().rename(source, target)

    config = extending(pictures, store, taps="0", split=None)
    with monkeypatch.context() as patch:
        patch.setattr(system, "current", Stops())
        with pytest.raises(StopError):
            extract(config)
    assert not store.exists()
    config = config if extend else tiny_config(pictures, store, taps="0,2,11")
    assert extract(config)["computed_rows"] == 0
    assert tree(store) == tree(large)
    assert [entry.name for entry in store.parent.iterdir()] == ["s.zarr"]
