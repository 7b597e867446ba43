"""``losa evaluate``: one run or several, on a store or on raw media, and their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losa.adapt.checkpoint import load_card
from losa.adapt.evaluate import EvaluateRequest, evaluate_store
from losa.adapt.predictions import check_places
from losa.adapt.scoresheet import Evaluation, PlainEvaluation
from losa.adapt.seeds import SeedSummary, check_seeds
from losa.config import EvaluateConfig
from losa.errors import UsageError
from losa.store.files import write_atomic

if TYPE_CHECKING:
    from losa.extract.extraction import ExtractEvent

OF_MEDIA: Final = ("weights", "data_dir", "num_workers")
"""Fields of the configuration that a store has no use for."""


def check_flags(settings: EvaluateConfig, given: Mapping[str, Any]) -> None:
    """Refuse flags that the source, or the number of runs, has no use for.

    Raises:
        UsageError: there is one; or the place of a file cannot be written.
    """
    source = _misfits_of_media if settings.dataset is not None else _misfits_of_stores
    for is_wrong, flag, what, todo in source(settings, given):
        if is_wrong:
            raise UsageError(flag, what, todo)
    for flag, place in (("--predictions", settings.predictions), ("--out", settings.out)):
        if place is not None and len(settings.run) > 1:
            raise UsageError(flag, f"does not go with {len(settings.run)} runs", "give one --run")
    check_places(settings.predictions, settings.out)
    task = load_card(settings.run[0]).task if settings.out is not None else "classes"
    if task != "classes":
        what = f"the tables are of classes, and {settings.run[0]} predicts {task}"
        raise UsageError("--out", what, "give --predictions")


_Misfits = Iterator[tuple[bool, str, str, str]]
"""Whether a flag does not fit, the flag, why, and what to do."""


def _misfits_of_media(settings: EvaluateConfig, _: Mapping[str, Any]) -> _Misfits:
    has_store, has_targets = settings.store is not None, settings.targets is not None
    yield has_store, "--dataset", "does not go with --store", "give one of them"
    yield has_targets, "--targets", "needs a store", "extract the split and give --store"
    is_average, what = settings.views in ("average", "logits"), "raw media have no stored views"
    yield is_average, "--views", f"{settings.views}: {what}", "give flip"


def _misfits_of_stores(settings: EvaluateConfig, given: Mapping[str, Any]) -> _Misfits:
    for name in OF_MEDIA:
        flag = f"--{name.replace('_', '-')}"
        yield name in given, flag, "needs --dataset", "a store is read without it"
    what = "flip: a store's features cannot be mirrored"
    todo = "give --dataset, or average for a store with views"
    yield settings.views == "flip", "--views", what, todo


def evaluate_runs(
    settings: EvaluateConfig, progress: Callable[[ExtractEvent], None]
) -> Evaluation | PlainEvaluation | SeedSummary:
    """One run's evaluation with its files written, or the summary of several that differ in seed.

    Raises:
        UsageError: two runs have the same seed.
        MismatchError: the runs differ in more than the seed.
        LosaError: as :func:`evaluate_store` and :func:`losa.live.evaluate.evaluate_dataset` do.
    """
    if len(settings.run) == 1:
        found = _evaluate_run(settings, settings.run[0], progress)
        return _written(found, settings)
    seeds = check_seeds(settings.run)
    results = [_evaluate_run(settings, run, progress).result for run in settings.run]
    return SeedSummary(seeds, tuple(results))


def _written(
    found: Evaluation | PlainEvaluation, settings: EvaluateConfig
) -> Evaluation | PlainEvaluation:
    """An evaluation whose files are written and named."""
    if settings.predictions is not None and found.predictions is not None:
        write_atomic(settings.predictions, found.predictions.csv())
    if settings.out is None or not isinstance(found, Evaluation):
        return found
    files = [str(settings.out / name) for name in found.write(settings.out)]
    return replace(found, facts={**found.facts, "files": files})


def _evaluate_run(
    settings: EvaluateConfig, run: Path, progress: Callable[[ExtractEvent], None]
) -> Evaluation | PlainEvaluation:
    split, device, size = settings.split, settings.device, settings.batch_size
    if settings.dataset is None:
        views = settings.views
        # Mirror images are refused of a store before anything is scored.
        assert views != "flip"
        request = EvaluateRequest(run, settings.store, split, device, size, views)
        is_listed = settings.predictions is not None
        return evaluate_store(replace(request, targets=settings.targets, is_listed=is_listed))
    # Decoders and backbones load for whoever reads media.
    from losa.live.evaluate import LiveRequest, evaluate_dataset

    live = LiveRequest(
        *(run, settings.dataset, settings.data_dir, split, settings.weights, size, device),
        num_workers=settings.num_workers,
        is_mirrored=settings.views == "flip",
    )
    return evaluate_dataset(live, progress=progress)
