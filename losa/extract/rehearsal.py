"""A small extraction by the real pipeline, timed part by part, and what a large one would take."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from losa.extract.extraction import ExtractEvent, Extraction, decode_pool
from losa.extract.planning import Inputs, calibrated, wanted_plan
from losa.extract.spool import calibration_tasks, rows_kept
from losa.features import Sample
from losa.store import create_store


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over rows: seconds until its first rows were done, and then a second's rows."""

    first_seconds: float
    first_rows: int
    rate: float

    def seconds(self, rows: int) -> float:
        """Seconds that a pass over ``rows`` rows takes.

        Example:
            >>> Pass(first_seconds=2.0, first_rows=32, rate=100.0).seconds(532)
            7.0
        """
        if not rows:
            return 0.0
        return self.first_seconds + max(0, rows - self.first_rows) / self.rate


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The parts of a small extraction.

    ``create_seconds`` lie between the two passes: processes ended, statistics, the empty store.
    ``close_seconds`` is what came after the last batch: syncs, commit records and the seal.
    ``kept_rows`` are forwarded by calibration alone, which a rehearsal does not do; the extraction
    decodes them again, ``decode_rate`` of them a second.
    """

    rows: int
    calibration_rows: int
    shard_rows: int
    sample_bytes: int
    calibration: Pass
    extraction: Pass
    create_seconds: float
    close_seconds: float
    kept_rows: int = 0
    decode_rate: float = math.inf

    @property
    def rate(self) -> float:
        """Rows a second of the extraction, once it runs."""
        return self.extraction.rate

    def seconds(self, rows: int, write: float | None) -> float:
        """Seconds of an extraction of ``rows`` rows on a disk that takes ``write`` bytes a second.

        Writing overlaps computing until the last shard, so the slower of them decides; what is
        closed at the end is at most one shard.
        """
        kept = min(rows, self.kept_rows)
        computing = self.extraction.seconds(rows - kept) + kept / self.decode_rate
        writing = 0.0 if write is None else rows * self.sample_bytes / write
        last = min(rows, self.shard_rows) / self.rows
        return (
            self.calibration.seconds(min(rows, self.calibration_rows))
            + self.create_seconds
            + max(computing, writing)
            + self.close_seconds * max(1.0, last)
        )


class Clock:
    """Notes when how many rows of each phase were done."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[float, int]]] = {}

    def __call__(self, event: ExtractEvent) -> None:
        """Note the time of an event."""
        self.seen.setdefault(event.phase, []).append((time.perf_counter(), event.done))

    def timed(self, phase: str, started: float, rows: int) -> Pass:
        """The pass of a phase over ``rows`` rows; with the last of them a shard is closed."""
        seen: list[tuple[float, int]] = []
        for when, done in self.seen[phase]:
            if (seen[-1][1] if seen else 0) < done < rows:
                seen.append((when, done))
        if len(seen) < 2:  # noqa: PLR2004 -- two make a rate
            return Pass(0.0, 0, rows / (self.seen[phase][-1][0] - started))
        (first, some), (last, most) = seen[0], seen[-1]
        return Pass(first - started, some, (most - some) / (last - first))


def rehearse(
    inputs: Inputs, rows: int, batch: int, place: Path, *, decode_rate: float = math.inf
) -> Rehearsal:
    """Extract at most ``rows`` rows, spread over the listing, into a folder that is then removed.

    Raises:
        LosaError: as an extraction.
    """
    listed = {name: _spread(samples, rows) for name, samples in inputs.dataset.splits.items()}
    split = "train" if "train" in listed else next(iter(listed))
    dataset = replace(inputs.dataset, splits={split: listed[split]})
    changes = {"on_error": "skip", "on_nonfinite": "skip", "batch_size": batch}
    config = inputs.config.model_copy(update=changes)
    whole = wanted_plan(replace(inputs, config=config))
    config = config.model_copy(update={"views": 1})
    small = replace(inputs, config=config, dataset=dataset)
    with tempfile.TemporaryDirectory(prefix=".losa-probe-", dir=place) as folder:
        found = _timed(small, Path(folder) / "store.zarr")
    return replace(
        found,
        calibration_rows=calibration_tasks(whole)[-1].stop,
        kept_rows=rows_kept(whole, place),
        decode_rate=decode_rate,
    )


def _timed(inputs: Inputs, path: Path) -> Rehearsal:
    """Extract into ``path`` as ``losa extract`` does, but for what that keeps of calibration."""
    clock = Clock()
    wanted = wanted_plan(inputs)
    started = time.perf_counter()
    with decode_pool(inputs) as pool:
        statistics = Extraction(inputs, path, wanted, clock).calibrate(pool=pool)
        plan = calibrated(wanted, statistics)
        create_store(path, plan, inputs.dataset.splits, statistics.arrays(plan.spec.dtype))
        created = time.perf_counter()
        extraction = Extraction(inputs, path, plan, clock)
        rows = extraction.write(pool=pool)
    extraction.seal()
    ended = time.perf_counter()
    calibrated_rows = min(rows, plan.calibration_rows)
    calibration = clock.timed("calibrate", started, calibrated_rows)
    extracted = clock.timed("extract", created, rows)
    return Rehearsal(
        rows=rows,
        calibration_rows=plan.calibration_rows,
        shard_rows=plan.shard_rows,
        sample_bytes=plan.spec.sample_bytes,
        calibration=calibration,
        extraction=extracted,
        create_seconds=max(0.0, created - started - calibration.seconds(calibrated_rows)),
        close_seconds=max(0.0, ended - created - extracted.seconds(rows)),
    )


def _spread(samples: tuple[Sample, ...], rows: int) -> tuple[Sample, ...]:
    """At most ``rows`` samples, evenly spread."""
    step = max(1, len(samples) // rows)
    return samples[::step][:rows]
