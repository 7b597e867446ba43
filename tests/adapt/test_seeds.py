"""Claims of losa.adapt.seeds: error bars over seeds, and over nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from losa.adapt.seeds import SeedSummary, check_seeds, summary
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.errors import MismatchError, StoreError, UsageError
from tests.adapt.memory_store import separable_store


def run_of(out: Path, **changes: object) -> Path:
    settings = {"out": out, "device": "cpu", "rank": 2, "epochs": 1, **changes}
    adapt_on(separable_store(), AdaptConfig.model_validate(settings))
    return out


def test_runs_that_differ_in_seed_alone_are_repetitions(tmp_path: Path) -> None:
    # The same taps by another name, and what only says how fast it goes.
    runs = [run_of(tmp_path / "a", seed=4), run_of(tmp_path / "b", taps="1,3", prefetch=1)]
    assert check_seeds(runs) == (4, 0)


def test_another_setting_is_refused_by_name(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", seed=1, lr=0.5)]
    with pytest.raises(MismatchError, match=r"a and .*b differ in more than the seed: lr: 0.003"):
        check_seeds(runs)


def test_the_same_seed_twice_is_no_error_bar(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", seed=3)
    with pytest.raises(UsageError, match="have the same seed 3"):
        check_seeds([run, run])


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gone"):
        check_seeds([tmp_path / "gone", tmp_path / "gone"])


def test_mean_and_standard_error_are_those_of_numpy_over_all_metrics() -> None:
    random = np.random.default_rng(0)
    results = [
        {"run": f"r{i}", "top1": float(random.uniform()), "loss": float(random.uniform()),
         "ece": None, "rows": 30, "skipped": 0, "confusion": [[1]], "split": "test"}
        for i in range(4)
    ]  # fmt: skip
    found = summary(results)
    assert list(found["mean"]) == ["top1", "loss"]
    for name in ("top1", "loss"):
        values = np.array([result[name] for result in results])
        assert found["mean"][name] == pytest.approx(values.mean())
        assert found["standard_error"][name] == pytest.approx(values.std(ddof=1) / 2)
    result = SeedSummary((5, 6, 7, 8), tuple(results)).result
    assert (result["split"], result["seeds"]) == ("test", [5, 6, 7, 8])
    assert [run["run"] for run in result["runs"]] == ["r0", "r1", "r2", "r3"]
    assert "confusion" not in result["runs"][0]
    ((rows, header),) = SeedSummary((5, 6, 7, 8), tuple(results)).tables()
    assert header[0] == "4 seeds"
    assert [row[0] for row in rows] == ["top1", "loss"]
