"""Training's claims: it learns, it chooses on val, it repeats itself, and it resumes to the bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from losa.adapt.checkpoint import load_adaptor
from losa.adapt.evaluate import logits_of_rows
from losa.adapt.metrics import SplitMetrics
from losa.adapt.progress import ProgressEvent
from losa.adapt.train import Training, adapt, adapt_on
from losa.config import AdaptConfig
from losa.errors import InputError, MismatchError, StoreError, UsageError
from losa.interrupt import PREEMPTED
from tests.adapt.memory_store import MemoryStore, separable_store

EPOCHS = 3


def config_for(out: Path, **changes: Any) -> AdaptConfig:
    values = {"rank": 2, "epochs": EPOCHS, "batch_size": 16, "lr": 0.01, "warmup_epochs": 1.0}
    return AdaptConfig(out=out, device="cpu", **{**values, "checkpoint_seconds": 1e9, **changes})


def weights_in(path: Path) -> dict[str, Tensor]:
    return safetensors.torch.load(path.read_bytes())


def metrics_in(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
    for name in ("best.safetensors", "last.safetensors"):
        left, right = weights_in(ours / name), weights_in(theirs / name)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    reports = [json.loads((path / "report.json").read_text()) for path in (ours, theirs)]
    assert reports[0]["metrics"] == reports[1]["metrics"]


class CrashError(Exception):
    """A death that training gets no chance to answer."""


def terminate(*_: object) -> None:
    raise CrashError


@pytest.fixture(params=["none", "raises"])
def _hosts_handlers(request: pytest.FixtureRequest) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell's background jobs begin with SIGINT ignored, and so would these tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request.param == "raises":
        signal.signal(signal.SIGTERM, terminate)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail_at(
    phase: str, epoch: int, step: int, error: type[BaseException]
) -> Callable[[ProgressEvent], None]:
    def progress(event: ProgressEvent) -> None:
        if (event.phase, event.epoch, event.step) == (phase, epoch, step):
            raise error

    return progress


@pytest.fixture(name="store")
def fixture_store() -> MemoryStore:
    return separable_store()


@pytest.mark.parametrize("adaptor", ["losa", "linear", "linear-all"])
def test_separable_planes_are_learned(store: MemoryStore, tmp_path: Path, adaptor: str) -> None:
    config = config_for(tmp_path, epochs=12, adaptor=adaptor)
    report = adapt_on(store, config)
    assert report.metrics["val"]["top1"] > 0.95
    assert report.metrics["test"]["top1"] > 0.95
    read = {tap for taps in store.split("train").reads for tap in taps}
    assert read == ({3} if adaptor == "linear" else {1, 3})


def test_training_does_not_depend_on_the_callers_random_numbers_nor_change_them(
    store: MemoryStore, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    adapt_on(store, config_for(tmp_path / "a", dropout=0.2))
    found = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(found, torch.rand(1))
    adapt_on(store, config_for(tmp_path / "b", dropout=0.2))
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_another_seed_gives_other_weights(store: MemoryStore, tmp_path: Path) -> None:
    adapt_on(store, config_for(tmp_path / "a"))
    adapt_on(store, config_for(tmp_path / "b", seed=1))
    left, right = (weights_in(tmp_path / run / "best.safetensors") for run in "ab")
    assert not torch.equal(left["head.linear.weight"], right["head.linear.weight"])


def test_threads_prefetch_and_checkpoints_do_not_change_a_run(
    store: MemoryStore, tmp_path: Path
) -> None:
    adapt_on(store, config_for(tmp_path / "a"))
    changes = {"read_threads": 4, "prefetch": 1, "checkpoint_seconds": 0.0}
    adapt_on(store, config_for(tmp_path / "b", **changes))
    assert_same_run(tmp_path / "a", tmp_path / "b")


DEATHS = [
    *(("train", 0, 1), ("train", 1, 4), ("train", 2, 6), ("val", 1, 1), ("val", 1, 6)),
    *(("val", 2, 2), ("test", 2, 1)),
]
RANDOM: dict[str, Any] = {"dropout": 0.1, "mixup": 0.3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    adapt_on(separable_store(), config_for(out, **RANDOM))
    return out


@pytest.mark.parametrize(
    ("error", "at"),
    [
        pytest.param(error, at, marks=() if is_crash == bool(place % 2) else pytest.mark.slow)
        for place, at in enumerate(DEATHS)
        for error, is_crash in ((KeyboardInterrupt, False), (CrashError, True))
    ],
)
def test_a_run_resumed_after_a_death_anywhere_equals_an_uninterrupted_one(
    store: MemoryStore,
    whole: Path,
    tmp_path: Path,
    error: type[BaseException],
    at: tuple[str, int, int],
) -> None:
    config = config_for(tmp_path / "halved", **RANDOM)
    with pytest.raises(error):
        adapt_on(store, config, progress=fail_at(*at, error))
    seen: list[ProgressEvent] = []
    adapt_on(store, config, progress=seen.append)
    assert_same_run(tmp_path / "halved", whole)
    trained = [event for event in seen if event.phase == "train"]
    if error is KeyboardInterrupt and at[0] == "train":
        assert len(trained) == EPOCHS * 6 - at[1] * 6 - at[2]


def test_a_resumed_run_on_views_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    store = separable_store(views=3)
    adapt_on(store, config_for(tmp_path / "whole"))
    for phase, epoch, step in (("train", 1, 4), ("val", 1, 6), ("train", 2, 5)):
        with pytest.raises(KeyboardInterrupt):
            adapt_on(
                store,
                config_for(tmp_path / "halved"),
                progress=fail_at(phase, epoch, step, KeyboardInterrupt),
            )
    adapt_on(store, config_for(tmp_path / "halved"))
    assert_same_run(tmp_path / "halved", tmp_path / "whole")


def test_an_epoch_has_as_many_steps_as_samples_whatever_the_views(tmp_path: Path) -> None:
    seen = {}
    for views in (1, 4):
        events: list[ProgressEvent] = []
        store = separable_store(views=views)
        adapt_on(store, config_for(tmp_path / f"{views}"), progress=events.append)
        seen[views] = [(event.phase, event.epoch, event.step, event.steps) for event in events]
    assert seen[4] == seen[1]


def test_a_death_between_two_files_of_an_epochs_end_is_mended(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt_on(store, config_for(tmp_path / "whole"))
    config = config_for(tmp_path / "halved")
    for name in ("save_weights", "save_snapshot"):
        with monkeypatch.context() as patch:
            patch.setattr(f"losa.adapt.course.{name}", _raise_crash)
            with pytest.raises(CrashError):
                adapt_on(store, config)
    adapt_on(store, config)
    assert_same_run(tmp_path / "halved", tmp_path / "whole")


def _raise_crash(*_: object) -> None:
    raise CrashError


def test_weights_better_than_the_snapshot_knows_of_are_not_believed(
    store: MemoryStore, tmp_path: Path
) -> None:
    adapt_on(store, config_for(tmp_path / "whole"))
    config = config_for(tmp_path / "halved")
    with pytest.raises(CrashError):
        adapt_on(store, config, progress=fail_at("train", 2, 1, CrashError))
    other = (tmp_path / "whole" / "best.safetensors").read_bytes()
    (tmp_path / "halved" / "best.safetensors").write_bytes(other[:100])
    adapt_on(store, config)
    assert_same_run(tmp_path / "halved", tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
@pytest.mark.usefixtures("_hosts_handlers")
def test_a_signal_saves_the_position_and_leaves_between_two_steps(
    store: MemoryStore, tmp_path: Path, number: signal.Signals, error: type[BaseException]
) -> None:
    adapt_on(store, config_for(tmp_path / "whole"))
    handler = signal.getsignal(number)

    def send(event: ProgressEvent) -> None:
        if (event.phase, event.epoch, event.step) == ("train", 1, 2):
            os.kill(os.getpid(), number)

    config = config_for(tmp_path / "halved")
    with pytest.raises(error) as left:
        adapt_on(store, config, progress=send)
    if error is SystemExit:
        assert left.value.code == PREEMPTED  # type: ignore[attr-defined]  # a SystemExit
    assert signal.getsignal(number) == handler
    seen: list[ProgressEvent] = []
    adapt_on(store, config, progress=seen.append)
    assert (seen[0].epoch, seen[0].step) == (1, 4)
    assert_same_run(tmp_path / "halved", tmp_path / "whole")


def test_the_best_weights_are_those_that_scored_best_on_val(
    store: MemoryStore, tmp_path: Path
) -> None:
    report = adapt_on(store, config_for(tmp_path, epochs=6, lr=0.3))
    lines = metrics_in(tmp_path)
    best = max(lines, key=lambda line: (line["val"]["top1"], line["epoch"]))
    assert report.metrics["val"] == best["val"]
    assert [line["epoch"] for line in lines if line["is_best"]][-1] == best["epoch"]
    adaptor, _ = load_adaptor(tmp_path)
    val = store.split("val")
    logits = logits_of_rows(adaptor, store, "val", np.arange(val.rows))
    assert (logits.argmax(1).numpy() == val.labels).mean() == best["val"]["top1"]


@pytest.mark.parametrize(
    "case",
    [
        (2, [0.5, 0.6, 0.4, 0.6, 0.7], 4),  # the same top-1 again is no improvement
        (1, [0.5, 0.6, 0.6, 0.7], 3),
        (0, [0.5, 0.6, 0.6, 0.7], 3),
        (3, [0.5, 0.4, 0.4, 0.6, 0.1, 0.2, 0.3, 0.9], 7),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_patience_counts_the_epochs_without_a_better_top1(
    store: MemoryStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[int, list[float], int],
    *,
    is_resumed: bool,
) -> None:
    patience, top1, epochs = case

    def score(training: Training, phase: str, _: object) -> SplitMetrics:
        # A tie has weights to keep, but is no improvement that patience would count.
        epoch = min(training._course.position.epoch, len(top1) - 1)
        return SplitMetrics(top1[epoch], 1.0, 1.0, 1.0 / (epoch + 1), 1.0, 30, 0)

    monkeypatch.setattr(Training, "_score", score)
    config = config_for(tmp_path, epochs=20, patience=patience)
    if is_resumed:
        with pytest.raises(KeyboardInterrupt):
            adapt_on(store, config, progress=fail_at("train", epochs - 1, 3, KeyboardInterrupt))
    report = adapt_on(store, config)
    assert len(metrics_in(tmp_path)) == epochs == report.timing["epochs"]


def test_a_finished_run_is_returned_without_training(store: MemoryStore, tmp_path: Path) -> None:
    first = adapt_on(store, config_for(tmp_path))
    seen: list[ProgressEvent] = []
    again = adapt_on(store, config_for(tmp_path, read_threads=1), progress=seen.append)
    assert again.to_json() == first.to_json()
    assert not seen


def test_another_configuration_in_the_same_place_is_refused_by_name(
    store: MemoryStore, tmp_path: Path
) -> None:
    adapt_on(store, config_for(tmp_path))
    with pytest.raises(MismatchError, match=r"lr: 0\.5 / 0\.01, rank: 4 / 2") as refused:
        adapt_on(store, config_for(tmp_path, lr=0.5, rank=4))
    assert refused.value.exit_code == 5
    store.store_id = "6" * 64
    with pytest.raises(MismatchError, match="store_id: 666"):
        adapt_on(store, config_for(tmp_path))


def test_overwrite_begins_afresh_and_leaves_foreign_files(
    store: MemoryStore, tmp_path: Path
) -> None:
    adapt_on(store, config_for(tmp_path / "a"))
    (tmp_path / "a" / "notes.txt").write_text("mine")
    adapt_on(store, config_for(tmp_path / "a", seed=4, overwrite=True))
    adapt_on(store, config_for(tmp_path / "b", seed=4))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    # The written configuration can be given back without wiping the run.
    assert "overwrite: false" in (tmp_path / "a" / "config.yaml").read_text()


def test_a_run_without_a_place_gets_one_that_its_configuration_names(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_for(tmp_path, epochs=1).model_copy(update={"out": None})
    adapt_on(store, config)
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("losa-")
    assert len(run.name) == len("losa-") + 8
    seen: list[ProgressEvent] = []
    adapt_on(store, config, progress=seen.append)
    assert not seen


def test_a_training_that_diverges_says_where_and_keeps_the_last_finite_state(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finite = store.calibration((1, 3))
    monkeypatch.setattr(store, "calibration", lambda _: finite)
    store.split("train").planes[:, 80:] = np.inf
    config = config_for(tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(
        InputError, match=r"epoch 1, step \d: loss or weights are not finite"
    ) as lost:
        adapt_on(store, config)
    last = tmp_path / "last.safetensors"
    assert ("the last finite state is kept" in str(lost.value)) == last.exists()
    assert ("nothing was saved yet" in str(lost.value)) != last.exists()
    assert not last.exists() or all(t.isfinite().all() for t in weights_in(last).values())


def test_a_store_without_val_and_test_trains_on_the_rest(tmp_path: Path) -> None:
    report = adapt_on(separable_store({"train": 80}), config_for(tmp_path))
    assert report.metrics["val"]["rows"] == 8
    assert "test" not in report.metrics


def test_half_precision_autocast_learns_and_resumes(store: MemoryStore, tmp_path: Path) -> None:
    changes = {"amp_dtype": "bfloat16", "epochs": 6}
    report = adapt_on(store, config_for(tmp_path / "whole", **changes))
    assert report.metrics["val"]["top1"] > 0.95
    assert report.environment["amp_dtype"] == "bfloat16"
    config = config_for(tmp_path / "halved", **changes)
    with pytest.raises(KeyboardInterrupt):
        adapt_on(store, config, progress=fail_at("train", 2, 3, KeyboardInterrupt))
    adapt_on(store, config)
    assert_same_run(tmp_path / "halved", tmp_path / "whole")


def test_mistakes_are_found_before_a_folder_is_made(store: MemoryStore, tmp_path: Path) -> None:
    for change in ({"taps": "2"}, {"adaptor": "lora"}):
        with pytest.raises(UsageError):
            adapt_on(store, config_for(tmp_path / "run", **change))
    with pytest.raises(StoreError, match="does not exist"):
        adapt(config_for(tmp_path / "run", store=tmp_path / "missing.zarr"))
    assert not (tmp_path / "run").exists()
