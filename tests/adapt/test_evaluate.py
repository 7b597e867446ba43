"""Evaluation's claims: same scores as training's, on stores that mean the same only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from losa.adapt.checkpoint import load_adaptor
from losa.adapt.evaluate import EvaluateRequest, evaluate, evaluate_store, logits_of_rows
from losa.adapt.scoresheet import Evaluation
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.errors import InputError, MismatchError, StoreError, UsageError
from losa.precision import decode
from tests.adapt.memory_store import QUANTISER, MemoryStore, separable_store

SPEC = separable_store().spec


def train(store: MemoryStore, out: Path) -> Path:
    config = AdaptConfig(out=out, device="cpu", rank=2, epochs=4, batch_size=16, lr=0.01)
    adapt_on(store, config)
    return out


@pytest.fixture(name="store")
def fixture_store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = separable_store(noise=4.0)
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    return store


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_repeats_what_the_report_says(
    store: MemoryStore, tmp_path: Path, split: str
) -> None:
    config = AdaptConfig(out=tmp_path, device="cpu", rank=2, epochs=4, batch_size=16)
    report = adapt_on(store, config)
    found = evaluate(tmp_path, split=split, device="cpu", batch_size=7)
    for name, value in report.metrics[split].items():
        assert found[name] == pytest.approx(value, rel=1e-5)
    assert sum(map(sum, found["confusion"])) == found["rows"]


def test_an_int8_store_is_trained_on_and_evaluated_through_its_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = separable_store(noise=4.0, dtype="int8")
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    report = adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", rank=2, epochs=4, lr=0.01))
    adaptor, card = load_adaptor(tmp_path)
    np.testing.assert_array_equal(card.quantiser, QUANTISER)
    np.testing.assert_array_equal(adaptor.standardise.std > 0, True)
    planes = torch.from_numpy(store.split("test").features(store.exponents))
    with torch.no_grad():
        want = adaptor(planes)
    assert torch.allclose(logits_of_rows(adaptor, store, "test", np.arange(30)), want, atol=1e-5)
    top1 = float((want.argmax(1).numpy() == store.split("test").labels).mean())
    assert evaluate(tmp_path, device="cpu")["top1"] == report.metrics["test"]["top1"] == top1


def test_val_that_the_run_held_out_of_train_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = separable_store({"train": 80}, noise=4.0)
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    report = adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", epochs=2))
    found = evaluate(tmp_path, split="val", device="cpu")
    assert found["top1"] == report.metrics["val"]["top1"]
    assert found["rows"] == 8


def test_train_without_the_rows_that_the_run_held_out_is_what_it_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = separable_store({"train": 80}, noise=4.0)
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", epochs=1))
    rows = {}
    for split in ("train", "val"):
        evaluate(tmp_path, split=split, device="cpu", predictions=tmp_path / "p.csv")
        with (tmp_path / "p.csv").open(newline="") as file:
            rows[split] = {row["key"] for row in csv.DictReader(file)}
    assert (len(rows["train"]), len(rows["val"])) == (72, 8)
    assert not rows["train"] & rows["val"]


def test_of_several_views_the_clean_one_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = separable_store({"train": 80}, noise=4.0, views=3)
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    report = adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", epochs=1))
    assert evaluate(tmp_path, split="train", device="cpu")["rows"] == 72
    found = evaluate(tmp_path, split="val", device="cpu", predictions=tmp_path / "p.csv")
    assert (found["rows"], found["top1"]) == (8, report.metrics["val"]["top1"])
    adaptor, _ = load_adaptor(tmp_path)
    train = store.split("train")
    clean = {train.samples[train.source_index[r]].key: r for r in np.flatnonzero(train.views == 0)}
    with (tmp_path / "p.csv").open(newline="") as file:
        predicted = {row["key"]: row["predicted"] for row in csv.DictReader(file)}
    rows = np.array([clean[key] for key in predicted])
    classes = logits_of_rows(adaptor, store, "train", rows).argmax(1).tolist()
    assert list(predicted.values()) == [store.classes[number] for number in classes]


@pytest.mark.parametrize("views", ["average", "logits"])
def test_all_views_of_a_sample_are_averaged_on_request_and_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: Literal["average", "logits"]
) -> None:
    store = separable_store({"train": 40}, noise=6.0, views=3)
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", epochs=1))
    train = store.split("train")
    # The run has held out of it what it does not know of: a view, and all views, are unreadable.
    lost = (train.source_index == 4) & (train.views == 0) | (train.source_index == 9)
    train.status[lost] = 2
    monkeypatch.setattr("losa.adapt.evaluate._was_held_out_of", lambda *_: False)
    request = EvaluateRequest(tmp_path, split="train", device="cpu", batch_size=7, views=views)
    found = evaluate_store(request)
    assert isinstance(found, Evaluation)
    result = found.result
    assert (result["views"], result["rows"], result["skipped"]) == (views, 40, 1)
    adaptor, _ = load_adaptor(tmp_path)
    shares, labels = np.zeros((40, 4)), np.zeros(40, int)
    logits = logits_of_rows(adaptor, store, "train", np.arange(train.rows)).double()
    for source in range(40):
        rows = np.flatnonzero((train.source_index == source) & (train.status == 1))
        labels[source] = train.samples[source].label
        if source != 9:
            said = logits[rows].softmax(1) if views == "average" else logits[rows]
            mean = said.mean(0) if views == "average" else said.mean(0).softmax(0)
            shares[source] = mean.numpy()
    right = (shares.argmax(1) == labels) & (shares.sum(1) > 0)
    assert result["top1"] == pytest.approx(right.mean())
    kept = np.arange(40) != 9
    loss = -np.log(shares[kept, labels[kept]]).mean()
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert len(found.predictions.csv().splitlines()) == 41


def test_views_of_which_there_is_one_cannot_be_averaged(store: MemoryStore, tmp_path: Path) -> None:
    request = EvaluateRequest(train(store, tmp_path), device="cpu", views="average")
    with pytest.raises(UsageError, match="--views: test has one view of each sample"):
        evaluate_store(request)


def test_figures_of_reliability_are_those_of_the_predictions(
    store: MemoryStore, tmp_path: Path
) -> None:
    found = evaluate_store(EvaluateRequest(train(store, tmp_path), device="cpu", batch_size=7))
    assert isinstance(found, Evaluation)
    confidence, right = found.predictions.confidences()
    place = np.ceil(confidence.astype(np.float64) * 15) - 1
    gaps = [(right[place == p] - confidence[place == p]).sum() for p in range(15)]
    assert found.result["ece"] == pytest.approx(np.abs(gaps).sum() / 30, abs=1e-6)
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["test"]["ece"] > 0


def targets_of(store: MemoryStore, path: Path, kind: str) -> Path:
    """A file that has targets for all samples but the first of test, from their labels."""
    cells: dict[str, tuple[str, Callable[[int], str]]] = {
        "classes": ("label", lambda label: f"other{label % 2}"),
        "labels": ("labels", lambda label: ";".join(["x"] * (label > 0) + ["y"] * (label > 2))),
        "numbers": ("number", lambda label: f"{100 + 10 * label}"),
    }
    name, cell = cells[kind]
    samples = [sample for split in store.splits for sample in store.split(split).samples]
    lines = [f"{sample.key},{cell(sample.label)}" for sample in samples if sample.key != "test/000"]
    path.write_text("\n".join([f"key,{name}", *lines]))
    return path


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_a_run_on_targets_is_evaluated_on_them(
    store: MemoryStore, tmp_path: Path, kind: str
) -> None:
    file = targets_of(store, tmp_path / "t.csv", kind)
    config = AdaptConfig(out=tmp_path / "run", device="cpu", rank=2, epochs=2, targets=file)
    report = adapt_on(store, config)
    request = EvaluateRequest(tmp_path / "run", device="cpu", batch_size=7, is_listed=True)
    found = evaluate_store(request)
    assert found.result["rows"] == 29
    for name, value in report.metrics["test"].items():
        if isinstance(value, float):
            assert found.result[name] == pytest.approx(value, rel=1e-5)
    assert found.predictions is not None
    rows = list(csv.DictReader(io.StringIO(found.predictions.csv().decode())))
    assert [row["key"] for row in rows] == [f"test/{place:03d}" for place in range(1, 30)]
    if kind == "numbers":
        errors = [abs(float(row["number"]) - float(row["number_predicted"])) for row in rows]
        assert found.result["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    else:
        labels = [sample.label for sample in store.split("test").samples[1:]]
        two = [f"other{label % 2}" for label in labels]
        several = [("", "x", "x", "x;y")[label] for label in labels]
        assert [row["label"] for row in rows] == (two if kind == "classes" else several)


def test_targets_of_another_kind_are_refused(store: MemoryStore, tmp_path: Path) -> None:
    run = train(store, tmp_path / "run")
    file = targets_of(store, tmp_path / "t.csv", "numbers")
    request = EvaluateRequest(run, device="cpu", targets=file)
    with pytest.raises(MismatchError):
        evaluate_store(request)


@pytest.mark.parametrize("has_val", [False, True])
def test_what_a_run_held_out_is_known_by_the_listing_whatever_the_store_has_become(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_val: bool
) -> None:
    store = separable_store({"train": 80}, noise=4.0)
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", epochs=1))
    store.store_id = "6" * 64
    if has_val:
        store.members["val"] = separable_store().members["val"]
    del store.plan  # made anew from what follows
    assert evaluate(tmp_path, split="train", device="cpu")["rows"] == 72
    assert evaluate(tmp_path, split="val", device="cpu")["rows"] == (30 if has_val else 8)


@pytest.mark.parametrize("other", ["listing", "order"])
def test_of_other_rows_a_run_has_held_out_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    store = separable_store({"train": 80}, noise=4.0)
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    adapt_on(store, AdaptConfig(out=tmp_path, device="cpu", epochs=1))
    if other == "listing":
        train = store.split("train")
        train.samples = (replace(train.samples[0], key="another"), *train.samples[1:])
        del store.plan  # made anew from what follows
    else:
        monkeypatch.setattr(store, "plan", replace(store.plan, order_seed=1))
    assert evaluate(tmp_path, split="train", device="cpu")["rows"] == 80


def test_a_run_with_a_val_of_its_own_has_held_out_nothing(
    store: MemoryStore, tmp_path: Path
) -> None:
    run = train(store, tmp_path)
    del store.members["val"], store.plan
    assert evaluate(run, split="train", device="cpu")["rows"] == 90


@pytest.mark.parametrize(("place", "message"), [("gone/p.csv", "does not exist"), (".", "folder")])
def test_predictions_that_could_not_be_written_are_refused_before_the_work(
    tmp_path: Path, place: str, message: str
) -> None:
    # There is no run here either, which is not looked for yet.
    with pytest.raises(UsageError, match=f"--predictions: .*{message}"):
        evaluate(tmp_path / "run", predictions=tmp_path / place)


def test_a_run_trained_with_autocast_on_the_cpu_is_evaluated_with_it(
    store: MemoryStore, tmp_path: Path
) -> None:
    config = AdaptConfig(
        out=tmp_path, device="cpu", rank=2, epochs=4, batch_size=16, amp_dtype="bfloat16"
    )
    report = adapt_on(store, config)
    found = evaluate(tmp_path, device="cpu", batch_size=16)
    assert found["amp_dtype"] == "bfloat16"
    assert found["loss"] == report.metrics["test"]["loss"]


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_trained_with_autocast_elsewhere_is_evaluated_without_it_on_the_cpu(
    store: MemoryStore, tmp_path: Path, *, is_finished: bool
) -> None:
    config = AdaptConfig(out=tmp_path, device="cpu", epochs=1, amp_dtype="bfloat16")
    adapt_on(store, config)
    path = tmp_path / "report.json"
    if is_finished:
        report = json.loads(path.read_text())
        report["environment"]["device"] = "NVIDIA H200"
        path.write_text(json.dumps(report))
    else:
        path.unlink()
        text = (tmp_path / "config.yaml").read_text()
        (tmp_path / "config.yaml").write_text(text.replace("device: cpu", "device: cuda:0"))
    assert evaluate(tmp_path, device="cpu")["amp_dtype"] == "none"


def test_a_run_whose_store_is_gone_asks_for_the_store(tmp_path: Path) -> None:
    config = AdaptConfig(out=tmp_path / "run", store=tmp_path / "f.zarr", device="cpu", epochs=1)
    adapt_on(separable_store(), config)
    with pytest.raises(StoreError, match=r"f\.zarr: does not exist; give --store: where"):
        evaluate(tmp_path / "run", device="cpu")
    with pytest.raises(StoreError, match=r"g\.zarr: does not exist") as refused:
        evaluate(tmp_path / "run", tmp_path / "g.zarr", device="cpu")
    assert "where the store is now" not in str(refused.value)


def test_predictions_are_listed_in_the_data_sets_order(store: MemoryStore, tmp_path: Path) -> None:
    run = train(store, tmp_path / "run")
    test = store.split("test")
    test.status[5] = 2
    found = evaluate(run, device="cpu", predictions=tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [sample.key for sample in test.samples]
    assert [row["label"] for row in rows] == [store.classes[s.label] for s in test.samples]
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right / len(rows) == found["top1"]
    assert rows[int(test.source_index[5])]["predicted"] == ""
    assert all(0.25 <= float(row["probability"]) <= 1 for row in rows if row["predicted"])
    assert (found["skipped"], found["rows"]) == (1, 30)


def test_logits_of_rows_are_the_modules_own_in_the_order_asked(
    store: MemoryStore, tmp_path: Path
) -> None:
    adaptor, _ = load_adaptor(train(store, tmp_path))
    rows = np.array([9, 2, 2, 17], dtype=np.int64)
    found = logits_of_rows(adaptor, store, "test", rows)
    raw = torch.from_numpy(store.split("test").planes[:, rows])
    with torch.no_grad():
        want = adaptor(decode(raw, "float16", (0, 0)))
    assert torch.allclose(found, want, atol=1e-6)
    with pytest.raises(InputError):
        logits_of_rows(adaptor, store, "test", np.array([30]))


def test_a_store_of_another_identity_and_dtype_but_the_same_features_will_do(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(store, tmp_path)
    other = separable_store(noise=4.0, dtype="float32", exponents=(1, 0))
    other.store_id = "7" * 64
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: other)
    assert evaluate(run, tmp_path / "other.zarr", device="cpu")["store_id"] == "7" * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": {"img_size": 9}}, r"preprocessing.img_size: 8 / 9"),
        ({"classes": ("a", "b", "c", "d")}, r"classes: "),
        ({"spec": replace(SPEC, backbone="big")}, r"backbone.name: tiny / big"),
        ({"spec": SPEC.with_taps((3,))}, r"taps: \[1, 3\] / \[3\]"),
    ],
)
def test_features_of_another_kind_are_refused_by_name(
    store: MemoryStore, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    run = train(store, tmp_path)
    del store.plan  # made anew from what follows
    for name, value in change.items():
        setattr(store, name, value)
    with pytest.raises(MismatchError, match=message) as refused:
        evaluate(run, device="cpu")
    assert refused.value.exit_code == 5
