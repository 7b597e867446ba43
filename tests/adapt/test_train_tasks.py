"""Training on every kind of task and with every switch: it learns, and it resumes to the bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from losa.adapt.checkpoint import load_adaptor
from losa.adapt.evaluate import evaluate, logits_of_rows
from losa.adapt.progress import ProgressEvent
from losa.adapt.report import read_report
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.errors import InputError, MismatchError, UsageError
from tests.adapt.memory_store import (
    MemoryStore,
    numbers_csv,
    separable_store,
    with_several_labels,
)

STEPS, EPOCHS = 6, 3

SWITCHES: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.9},
    "balanced": {"class_weights": "balanced", "mixup": 0.3},
    "head": {"head_lr": 0.003, "head_weight_decay": 0.3, "dropout": 0.1},
    "no-val": {"val_fraction": 0.0, "ema": 0.9},
    "half": {"ema": 0.99, "amp_dtype": "bfloat16", "class_weights": "effective"},
    "labels": {"class_weights": "balanced", "ema": 0.9},
    "labels-mixed": {"mixup": 0.4, "patience": 2},
    "numbers": {
        "ema": 0.9,
        "dropout": 0.1,
        "head_lr": 0.003,
        "head_weight_decay": 0.3,
        "regression_loss": "mse",
    },
    "numbers-mixed": {"mixup": 0.4, "head_lr": 0.05},
}


QUICK = ("balanced", "no-val", "half", "labels-mixed", "numbers")
"""Every switch is in one of these; the others put them together differently."""


def config_for(out: Path, **changes: Any) -> AdaptConfig:
    values = {"rank": 2, "epochs": EPOCHS, "batch_size": 16, "lr": 0.01, "warmup_epochs": 1.0}
    return AdaptConfig(out=out, device="cpu", **{**values, "checkpoint_seconds": 1e9, **changes})


def store_of(name: str, root: Path) -> tuple[MemoryStore, dict[str, Any]]:
    """A store for a line of SWITCHES, and its targets."""
    store = separable_store()
    if name == "no-val":
        return separable_store({"train": 90, "test": 30}), {}
    if name.startswith("labels"):
        return with_several_labels(store), {}
    if name.startswith("numbers"):
        return store, {"targets": numbers_csv(store, root / "targets.csv")}
    return store, {}


class CrashError(Exception):
    """A death that training gets no chance to answer."""


def dies_at(step: int, how: str) -> Callable[[ProgressEvent], None]:
    """Die after so many training steps of this call."""
    left = [step]

    def progress(event: ProgressEvent) -> None:
        if event.phase != "train":
            return
        left[0] -= 1
        if left[0] == 0:
            if how == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise CrashError if how == "crash" else KeyboardInterrupt

    return progress


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
    for name in ("best.safetensors", "last.safetensors"):
        left, right = (safetensors.torch.load((at / name).read_bytes()) for at in (ours, theirs))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    reports = [json.loads((path / "report.json").read_text()) for path in (ours, theirs)]
    assert reports[0]["metrics"] == reports[1]["metrics"]


@pytest.mark.parametrize(
    "name",
    [
        *QUICK,
        *(pytest.param(each, marks=pytest.mark.slow) for each in SWITCHES if each not in QUICK),
    ],
)
def test_runs_killed_at_random_steps_end_as_if_they_had_not_been(tmp_path: Path, name: str) -> None:
    store, targets = store_of(name, tmp_path)
    changes = {**SWITCHES[name], **targets}
    adapt_on(store, config_for(tmp_path / "whole", **changes))
    random = np.random.default_rng(sorted(SWITCHES).index(name))
    for how in ("crash", "stop", "signal"):
        config = config_for(tmp_path / "halved", **changes, checkpoint_seconds=float(how == "stop"))
        try:
            adapt_on(store, config, progress=dies_at(int(random.integers(1, 6)), how))
        except (CrashError, KeyboardInterrupt, SystemExit):
            continue
        pytest.fail("the run was over before its death")
    adapt_on(store, config_for(tmp_path / "halved", **changes))
    assert_same_run(tmp_path / "halved", tmp_path / "whole")
    lines = (tmp_path / "halved" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, len(lines) + 1))


def test_several_labels_are_learned_and_chosen_by_average_precision(tmp_path: Path) -> None:
    store = with_several_labels(separable_store())
    report = adapt_on(store, config_for(tmp_path, epochs=12))
    assert set(report.metrics["test"]) == {
        "mean_ap", "macro_f1", "micro_f1", "loss", "rows", "skipped"
    }  # fmt: skip
    assert report.metrics["val"]["mean_ap"] > 0.95
    assert report.metrics["test"]["micro_f1"] > 0.9
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: (line["val"]["mean_ap"], line["epoch"]))
    assert report.metrics["val"] == best["val"]
    adaptor, card = load_adaptor(tmp_path)
    assert (card.task, card.classes, card.targets) == ("labels", store.classes, "")
    test = store.split("test")
    logits = logits_of_rows(adaptor, store, "test", np.arange(test.rows))
    truth = np.zeros((test.rows, 4), bool)
    for row, source in enumerate(test.source_index.tolist()):
        truth[row, list(test.samples[source].labels or ())] = True
    hits = (truth & (logits.numpy() > 0)).sum()
    f1 = 2 * hits / ((logits.numpy() > 0).sum() + truth.sum())
    assert report.metrics["test"]["micro_f1"] == pytest.approx(f1)


def test_numbers_are_learned_in_their_own_units(tmp_path: Path) -> None:
    store = separable_store()
    config = config_for(tmp_path / "run", epochs=20, targets=numbers_csv(store, tmp_path / "t.csv"))
    report = adapt_on(store, config)
    assert report.metrics["test"]["r2"] > 0.9
    adaptor, card = load_adaptor(tmp_path / "run")
    assert (card.task, card.classes) == ("numbers", ("age", "size"))
    test = store.split("test")
    logits = logits_of_rows(adaptor, store, "test", np.arange(test.rows)).double().numpy()
    mean, std = np.array(card.scale).T
    label = test.labels.astype("f8")
    truth = np.stack([10 + 7 * label**2, 1e4 - 0.5 * label], 1)
    off = np.abs(logits * std + mean - truth).mean(0)
    assert report.metrics["test"]["of_each"]["age"]["mae"] == pytest.approx(off[0], rel=1e-3)
    assert report.metrics["test"]["of_each"]["size"]["mae"] == pytest.approx(off[1], rel=1e-3)
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert report.metrics["val"]["loss"] == min(line["val"]["loss"] for line in lines)


@pytest.mark.parametrize("patience", [2])
def test_patience_with_numbers_counts_the_epochs_without_a_lower_loss(
    tmp_path: Path, patience: int
) -> None:
    store = separable_store(noise=4.0)
    targets = numbers_csv(store, tmp_path / "t.csv")
    # The rate is too high for a loss that falls in every epoch.
    changes = {"epochs": 12, "targets": targets, "lr": 0.1, "patience": None}
    adapt_on(store, config_for(tmp_path / "all", **changes))
    every = (tmp_path / "all" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["val"]["loss"] for line in every]
    stops = [e for e in range(12) if e - int(np.argmin(losses[: e + 1])) == patience]
    assert stops
    assert 0 < stops[0] < 11
    report = adapt_on(store, config_for(tmp_path / "some", **{**changes, "patience": patience}))
    assert (tmp_path / "some" / "metrics.jsonl").read_text().splitlines() == every[: stops[0] + 1]
    assert report.metrics["val"]["loss"] == min(losses[: stops[0] + 1])


def test_without_val_the_last_weights_are_scored_and_nothing_is_said_to_have_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = separable_store({"train": 80, "test": 30}, noise=4.0)
    report = adapt_on(store, config_for(tmp_path, val_fraction=0.0))
    assert report.chosen_by == "nothing"
    assert read_report(tmp_path / "report.json") == report
    assert report.to_json()["chosen_by"] == "nothing"
    assert report.metrics.keys() == {"test"}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["val"] for line in lines] == [None] * EPOCHS
    assert [line["step"] for line in lines] == [5, 10, 15]
    (best, _), (last, _) = (load_adaptor(tmp_path, which=name) for name in ("best", "last"))
    logits = [logits_of_rows(one, store, "test", np.arange(30)) for one in (best, last)]
    assert torch.equal(logits[0], logits[1])
    right = logits[1].argmax(1).numpy() == store.split("test").labels
    assert report.metrics["test"]["top1"] == right.mean()
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    assert evaluate(tmp_path, split="train", device="cpu")["rows"] == 80
    store.members["val"] = store.members["test"]
    assert evaluate(tmp_path, split="val", device="cpu")["rows"] == 30


def test_with_val_the_report_says_that_it_chose(tmp_path: Path) -> None:
    assert adapt_on(separable_store(), config_for(tmp_path, epochs=1)).chosen_by == "val"


def test_patience_needs_a_val_to_watch(tmp_path: Path) -> None:
    config = config_for(tmp_path / "run", val_fraction=0.0, patience=2)
    with pytest.raises(UsageError, match="--patience: needs a val"):
        adapt_on(separable_store({"train": 80}), config)
    assert not (tmp_path / "run").exists()


def test_a_number_beyond_all_measure_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    # Its error would be infinite, which a report cannot hold.
    store = separable_store()
    file = numbers_csv(store, tmp_path / "t.csv")
    lines = file.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("test/"))
    lines[place] = f"{lines[place].split(',')[0]},1e60,1"
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"age is 1e\+60 for a sample"):
        adapt_on(store, config_for(tmp_path / "run", targets=file, epochs=1))
    assert not (tmp_path / "run").exists()


def test_two_tasks_share_a_store_and_each_has_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = separable_store()
    halves = tmp_path / "halves.csv"
    lines = [f"{s.key},{s.label // 2}\n" for m in store.members.values() for s in m.samples]
    halves.write_text("key,label\n" + "".join(lines))
    config = config_for(tmp_path, epochs=8).model_copy(update={"out": None})
    plain = adapt_on(store, config)
    relabelled = adapt_on(store, config.model_copy(update={"targets": halves}))
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert plain.store_id == relabelled.store_id
    assert relabelled.metrics["test"]["top1"] > 0.9
    again: list[ProgressEvent] = []
    moved = halves.rename(tmp_path / "moved.csv")
    adapt_on(store, config.model_copy(update={"targets": moved}), progress=again.append)
    assert not again


def test_other_targets_in_the_place_of_a_run_are_refused(tmp_path: Path) -> None:
    store = separable_store()
    file = numbers_csv(store, tmp_path / "t.csv")
    adapt_on(store, config_for(tmp_path / "run", targets=file, epochs=1))
    file.write_text(file.read_text().replace("10000.0", "10001.0"))
    with pytest.raises(MismatchError, match="targets: "):
        adapt_on(store, config_for(tmp_path / "run", targets=file, epochs=1))
    with pytest.raises(MismatchError, match="targets: "):
        adapt_on(store, config_for(tmp_path / "run", epochs=1))


def test_kept_and_reported_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    store = separable_store()
    report = adapt_on(store, config_for(tmp_path, ema=0.9, lr=0.3))
    last = safetensors.torch.load((tmp_path / "last.safetensors").read_bytes())
    assert not torch.equal(last["ema/head.linear.weight"], last["weights/head.linear.weight"])
    adaptor, _ = load_adaptor(tmp_path)
    averaged, _ = load_adaptor(tmp_path, which="last")
    kept = averaged.get_parameter("head.linear.weight")
    assert torch.equal(kept, last["ema/head.linear.weight"])
    val = store.split("val")
    logits = logits_of_rows(adaptor, store, "val", np.arange(val.rows))
    assert (logits.argmax(1).numpy() == val.labels).mean() == report.metrics["val"]["top1"]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    if json.loads(lines[-1])["is_best"]:
        best = safetensors.torch.load((tmp_path / "best.safetensors").read_bytes())
        assert torch.equal(best["head.linear.weight"], last["ema/head.linear.weight"])


def test_balanced_weights_make_a_rare_class_as_likely_as_a_common_one(tmp_path: Path) -> None:
    store = separable_store({"train": 400, "val": 80}, classes=2, noise=10.0)
    train = store.split("train")
    # One in 21 is of class 1; the rest of it is out of sight.
    train.status[np.flatnonzero(train.labels == 1)[10:]] = 2
    likely = {}
    for kind in ("none", "balanced"):
        config = config_for(tmp_path / kind, class_weights=kind, epochs=8, adaptor="linear")
        adapt_on(store, config)
        adaptor, _ = load_adaptor(tmp_path / kind)
        # Not the best weights: val, of both classes alike, may choose them before they are sure.
        last = safetensors.torch.load((tmp_path / kind / "last.safetensors").read_bytes())
        adaptor.load_state_dict(
            {name[8:]: value for name, value in last.items() if name.startswith("weights/")}
        )
        logits = logits_of_rows(adaptor, store, "val", np.arange(80))
        likely[kind] = float(logits.softmax(1)[:, 1].mean())
    assert likely["none"] < 0.3 < likely["balanced"]


def test_settings_of_another_task_are_said_to_have_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = separable_store()
    file = numbers_csv(store, tmp_path / "t.csv")
    changes = {"targets": file, "class_weights": "balanced", "epochs": 1}
    adapt_on(store, config_for(tmp_path / "run", **changes))
    assert "--class-weights has no effect on numbers" in caplog.text


def test_a_store_without_any_known_train_row_is_refused_before_a_folder_is_made(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text("key,age\nval/001,3\nval/002,4\n")
    with pytest.raises(InputError, match=r"split train\): has no targets"):
        adapt_on(separable_store(), config_for(tmp_path / "run", targets=tmp_path / "t.csv"))
    assert not (tmp_path / "run").exists()
