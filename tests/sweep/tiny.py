"""Small sweeps: of a store in memory, or of one on a disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from losa.adapt.source import FeatureSource
from losa.sweep.folder import SweepFolder, recorded
from losa.sweep.results import TrialResult
from losa.sweep.schedule import All, Halved, Schedule
from losa.sweep.strategy import parse_strategy
from losa.sweep.trials import SweepTrial, TrialMaker, base_config
from losa.sweep.worker import Member, Worker

FILE: Final = Path("sweep.yaml")
BASE: Final[Mapping[str, Any]] = {
    "rank": 2,
    "epochs": 2,
    "batch_size": 16,
    "lr": 0.01,
    "warmup_epochs": 0.5,
    "device": "cpu",
}


def begun(
    store: FeatureSource, root: Path, sections: Mapping[str, Any]
) -> tuple[SweepFolder, list[SweepTrial]]:
    """The folder of a sweep that begins, and its trials."""
    sections = {**sections, "base": {**BASE, **sections.get("base", {})}}
    strategy = parse_strategy(sections, FILE)
    folder = SweepFolder(root)
    base = base_config(strategy, Path("memory.zarr"))
    maker = TrialMaker(store, base, folder.trials)
    folder.begin_or_join(recorded(sections, base, store.store_id))
    return folder, maker.all_of(strategy.settings(), FILE)


def scheduled(
    store: FeatureSource, root: Path, sections: Mapping[str, Any]
) -> tuple[SweepFolder, Schedule]:
    """The folder of a sweep that begins, and what is left of it."""
    folder, trials = begun(store, root, sections)
    halving = parse_strategy(sections, FILE).halving
    if halving is None:
        return folder, All(folder, trials)
    return folder, Halved(folder, trials, halving, store.store_id)


def trained(
    store: FeatureSource, root: Path, sections: Mapping[str, Any]
) -> tuple[SweepFolder, list[TrialResult]]:
    """A sweep trained by this process, and its results."""
    folder, schedule = scheduled(store, root, sections)
    Worker(folder, schedule, store, member=Member()).run()
    results = [folder.result(trial.digest) for trial in schedule.trials()]
    assert all(result is not None for result in results)
    return folder, [result for result in results if result is not None]


def result(**changes: Any) -> TrialResult:
    """A result of a complete trial."""
    val = {"top1": 0.5, "loss": 1.0, "rows": 9}
    values: dict[str, Any] = {
        "digest": "0" * 16,
        "status": "complete",
        "config": {"seed": 0, "rank": 8, "out": "x"},
        "store_id": "5" * 64,
        "metrics": {"val": val, "test": val},
        "epochs": 2,
        "parameters": {"trainable": 7},
        "timing": {"seconds": 1.5},
        "memory": {},
    }
    return TrialResult(**{**values, **changes})
