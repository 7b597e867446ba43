"""The folder of a run: who may write it, and what is left after a death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losa.adapt.partition import part_of
from losa.adapt.progress import ProgressEvent
from losa.adapt.rundir import (
    INDIFFERENT,
    RunDir,
    config_digest,
    default_out,
    effective,
    load_config,
)
from losa.adapt.source import FeatureSource
from losa.adapt.targets import Kind
from losa.adapt.task import with_task
from losa.adapt.train import adapt_on, card_of, used_spec
from losa.config import AdaptConfig
from losa.errors import LockedError, MismatchError, ResourceError, StoreError
from tests.adapt.memory_store import separable_store

STORE = separable_store()


def claim(out: Path, **changes: Any) -> RunDir:
    config = AdaptConfig(out=out, amp_dtype="none", **changes)
    with RunDir.claim(config, card_of(STORE, config)) as run:
        return run


def test_only_what_changes_results_is_compared(tmp_path: Path) -> None:
    claim(tmp_path)
    claim(tmp_path, read="mmap", read_threads=7, prefetch=9, checkpoint_seconds=1.0, device="cpu")
    claim(tmp_path, store=tmp_path / "moved.zarr")
    assert set(AdaptConfig.model_fields) > INDIFFERENT
    other: dict[str, Any] = {
        "adaptor": "linear", "taps": "last", "rank": 3, "token_rank": 3, "seed": 1, "epochs": 2,
        "order": "token-channel", "residual": "sum", "mixer_norm": True, "pool": "mean",
        "standardise": "raw", "dropout": 0.1, "lr": 1.0, "weight_decay": 0.5, "batch_size": 3,
        "warmup_epochs": 1.0, "label_smoothing": 0.3, "clip": 9.0, "mixup": 0.1, "patience": 3,
        "val_fraction": 0.5, "ema": 0.9, "head_lr": 0.5, "head_weight_decay": 0.5,
        "class_weights": "balanced", "start": "first",
        "share_mixers": True, "init_scale": 0.5, "data_seed": 7, "token_mixing": "space",
        "token_order": "time-space", "time_rank": 3, "clip_frames": 2,
    }  # fmt: skip
    elsewhere = {"amp_dtype", "width", "regression_loss", "clip_stride"}
    assert set(other) | INDIFFERENT | elsewhere == set(AdaptConfig.model_fields)
    for name, value in other.items():
        with pytest.raises(MismatchError, match=rf"{name}: "):
            claim(tmp_path, **{name: value})
    claim(tmp_path / "rival", adaptor="lst")
    with pytest.raises(MismatchError, match="width: "):
        claim(tmp_path / "rival", adaptor="lst", width=9)
    claim(tmp_path / "clips", clip_frames=2)
    with pytest.raises(MismatchError, match="clip_stride: "):
        claim(tmp_path / "clips", clip_frames=2, clip_stride=3)


def test_a_run_joined_with_another_path_of_its_store_remembers_the_new_one(tmp_path: Path) -> None:
    claim(tmp_path, store=Path("old.zarr"), rank=5)
    claim(tmp_path, store=Path("new.zarr"), rank=5, read_threads=7)
    found = load_config(tmp_path)
    assert (found.store, found.rank, found.read_threads) == (Path("new.zarr"), 5, 2)
    with pytest.raises(MismatchError):
        claim(tmp_path, store=Path("third.zarr"), rank=6)
    assert load_config(tmp_path).store == Path("new.zarr")


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    config = AdaptConfig(out=tmp_path, amp_dtype="none")
    with (
        RunDir.claim(config, card_of(STORE, config)),
        pytest.raises(LockedError, match="is being trained by another process") as caught,
    ):
        claim(tmp_path)
    assert caught.value.exit_code == 7
    claim(tmp_path)


def test_the_default_place_is_named_by_adaptor_and_configuration() -> None:
    config = AdaptConfig(adaptor="linear")
    place = default_out(config, "id")
    assert place == Path("runs") / f"linear-{config_digest(config, 'id')[:8]}"
    assert default_out(config, "other") != place
    assert default_out(AdaptConfig(adaptor="linear", prefetch=5), "id") == place
    assert default_out(AdaptConfig(adaptor="linear", seed=5), "id") != place


def test_the_configuration_can_be_read_back(tmp_path: Path) -> None:
    claim(tmp_path, rank=5)
    assert load_config(tmp_path).rank == 5
    with pytest.raises(StoreError, match="does not exist"):
        load_config(tmp_path / "other")


def test_a_folder_without_configuration_holds_no_run_yet(tmp_path: Path) -> None:
    run = claim(tmp_path, rank=5)
    run.append_metrics({"epoch": 1})
    (tmp_path / "config.yaml").unlink()  # what a death between two files leaves
    again = claim(tmp_path, rank=6)
    assert again.metrics_bytes() == 0


def test_metrics_are_rewound_to_what_a_snapshot_knows(tmp_path: Path) -> None:
    run = claim(tmp_path)
    run.append_metrics({"epoch": 1})
    size = run.metrics_bytes()
    run.append_metrics({"epoch": 2})
    run.rewind_metrics(size)
    assert run.metrics.read_text() == '{"epoch": 1}\n'
    with pytest.raises(StoreError, match=f"is {size} bytes, not {size + 1}"):
        run.rewind_metrics(size + 1)


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file"):
        claim(tmp_path / "file")


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    claim(tmp_path)
    (tmp_path / "adaptor.json").write_text("{")
    with pytest.raises(StoreError, match=r"adaptor\.json"):
        claim(tmp_path)


def short(out: Path, **changes: Any) -> AdaptConfig:
    return AdaptConfig(out=out, device="cpu", epochs=1, batch_size=16, **changes)


def test_a_run_is_the_same_by_the_taps_it_uses_however_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[ProgressEvent] = []
    for number, taps in enumerate(("all", "1,3", "3,1", "last:2")):
        config = short(tmp_path, taps=taps)
        adapt_on(STORE, config, progress=seen.append if number else None)
        adapt_on(STORE, config.model_copy(update={"out": None}))
    assert not seen
    assert len(list((tmp_path / "runs").iterdir())) == 1
    with pytest.raises(MismatchError, match="taps: 3 / 1,3"):
        adapt_on(STORE, short(tmp_path, taps="last"))


@pytest.mark.parametrize("adaptor", ["linear", "linear-all"])
def test_options_of_the_mixers_are_no_part_of_a_run_without_mixers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, adaptor: str
) -> None:
    adapt_on(STORE, short(tmp_path, adaptor=adaptor, rank=8))
    assert "no effect" not in caplog.text
    ignored: dict[str, Any] = {
        "rank": 3, "token_rank": 2, "order": "token-channel", "residual": "sum",
        "start": "first", "share_mixers": True, "init_scale": 0.5, "mixer_norm": True,
        "dropout": 0.5, "token_mixing": "time", "token_order": "time-space", "time_rank": 3,
    }  # fmt: skip
    seen: list[ProgressEvent] = []
    config = short(tmp_path, adaptor=adaptor, **ignored)
    adapt_on(STORE, config, progress=seen.append)
    assert not seen
    mixers = "--start, --share-mixers, --init-scale, --mixer-norm"
    clips = "--token-mixing, --token-order, --time-rank"
    names = f"--rank, --token-rank, --order, --residual, {mixers}, {clips}, --dropout"
    assert f"{names} has no effect on {adaptor}" in caplog.text
    with pytest.raises(MismatchError, match="pool"):
        adapt_on(STORE, short(tmp_path, adaptor=adaptor, pool="mean"))


def test_a_share_to_hold_out_beside_a_val_split_is_said_to_have_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = "--val-fraction has no effect on a store that has a val split"
    store = separable_store()
    assert "val" in store.splits
    config = short(tmp_path / "1")
    adapt_on(store, config)
    assert said not in caplog.text
    changes = {"val_fraction": 0.3, "out": tmp_path / "2"}
    adapt_on(store, config.model_copy(update=changes))
    assert said in caplog.text
    caplog.clear()
    changes["out"] = tmp_path / "3"
    adapt_on(separable_store({"train": 80, "test": 8}), config.model_copy(update=changes))
    assert said not in caplog.text


@pytest.mark.parametrize(
    ("task", "ignored", "counted"),
    [
        ("classes", {"regression_loss": "mse"}, {"label_smoothing": 0.3}),
        ("labels", {"regression_loss": "mse"}, {"class_weights": "balanced"}),
        (
            "numbers",
            {"label_smoothing": 0.3, "class_weights": "balanced"},
            {"regression_loss": "mse"},
        ),
    ],
)
def test_settings_of_other_tasks_do_not_make_it_another_run(
    tmp_path: Path, task: Kind, ignored: dict[str, Any], counted: dict[str, Any]
) -> None:
    store = of_kind(task, tmp_path)
    base = AdaptConfig(out=tmp_path / "run", amp_dtype="none")

    def joined(**changes: Any) -> None:
        config = base.model_copy(update=changes)
        acting = effective(config, used_spec(store, config).taps, task)
        with RunDir.claim(config, card_of(store, acting, part_of(store.split("train")))):
            pass

    joined()
    joined(**ignored)
    for name, value in counted.items():
        with pytest.raises(MismatchError, match=rf"{name}: "):
            joined(**{name: value})


def of_kind(task: Kind, folder: Path) -> FeatureSource:
    """A store seen through a file of targets of a kind."""
    store = separable_store()
    header, values = {
        "classes": ("label", ("a", "b")),
        "labels": ("labels", ("a;b", "b")),
        "numbers": ("age", ("1.5", "2")),
    }[task]
    keys = [sample.key for sample in store.split("train").samples]
    lines = [f"{key},{values[place % 2]}" for place, key in enumerate(keys)]
    file = folder / "targets.csv"
    file.write_text("\n".join([f"key,{header}", *lines]))
    return with_task(store, file)
