"""M4 and M7: does an extraction cost what its forward costs, and does its memory stay where it is?

Question: how long does a whole extraction take, against nothing but the forward of the same
backbone on the same batches?
Method: generated JPEGs of about 256 px, random weights, one process. The extraction is
``create_store``, ``Extraction.write`` and ``seal``: decoding (its processes started anew every
round), forward, encoding, checksums, writing, syncing, commits and seal. Not in it, on either side:
imports, building the backbone and listing the data set; calibration is measured apart, because its
rows are at most 512 whatever the data set has. The bare forward is the same backbone object under
``no_grad`` with the same taps, on the very batches, padding included, decoded and held in memory.
Both take turns; what the processors worked (``cpu``, of all processes) is noted beside wall time.
``--video``: clips of H.264 through an image transformer frame by frame, decoded beforehand, once:
the extraction is given copies of their pixels from memory, so that decoding is outside the clock;
what it took of the processors is told beside (``decode``: its share of decoding and extraction).
Memory: whole ``extract`` commands on few and on ten times as many images, watched from outside.
Ratio against: the bare forward (target <= 1.05 with ViT-S/14 at 224 px, <= 1.15 with a tiny ViT
and of clips).
The best rounds decide; medians and the rounds' own ratios (``paired``) stand beside them.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks import memory, rounds
from benchmarks.record import note, publish
from benchmarks.stores import BATCH, scratch
from losa.config import ExtractConfig
from losa.extract.decode import DecodedBatch, DecodePool
from losa.extract.extraction import Extraction
from losa.extract.media import Media
from losa.extract.planning import calibrated, gather_inputs, wanted_plan
from losa.extract.rows import RowSource
from losa.extract.transforms import Preprocessing
from losa.store import Plan, create_store, open_store
from losa.store.claims import ShardTask

MOST: Final = {"vit_small_patch14_dinov2": 1.05, "vit_tiny_patch16_224": 1.15}
"""What M4 may be, by timm name."""

MOST_OF_CLIPS: Final = 1.15
VIDEO: Final = "vit_small_patch14_dinov2"
BARE, LOSA = "bare forward", "extraction"
IMAGE_SIDES: Final = (200, 320)
MORE: Final = 10


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/extraction.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks extraction")
    parser.add_argument("--models", help="timm names, by commas")
    parser.add_argument("--images", type=int, help="or clips (default 256, or 48 clips)")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--video", action="store_true", help="clips, and no memory")
    parser.add_argument("--frames", type=int, default=8, help="of a clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", default="auto", help="decode processes")
    parser.add_argument("--compile", action="store_true", help="compile the forward, on both sides")
    parser.add_argument("--memory-images", type=int, default=200, help="0: memory is not measured")
    parser.add_argument("--dir", type=Path, default=None, help="where images and stores are put")
    options = parser.parse_args(argv)
    count = options.images or (48 if options.video else 256)
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "models": {}}
    usual = VIDEO if options.video else ",".join(MOST)
    with scratch(options.dir) as folder:
        (draw_clips if options.video else draw)(folder / "pictures", count)
        for model in (options.models or usual).split(","):
            config = config_of(model, folder, options).model_copy(update={"device": "cpu"})
            target = MOST.get(model, MOST["vit_small_patch14_dinov2"])
            target = MOST_OF_CLIPS if options.video else target
            found["models"][model] = measured(config, options.rounds, target)
        if options.memory_images and not options.video:
            found["memory"] = memory_growth(folder, options.memory_images)
    publish("extraction", argv, found, variant="_video" if options.video else "")
    return 0


def config_of(model: str, folder: Path, options: argparse.Namespace) -> ExtractConfig:
    """An extraction of the generated images into ``folder``."""
    return ExtractConfig(
        model=model,
        weights="random",
        dataset=f"folder:{folder / 'pictures'}",
        store=folder / "round.zarr",
        img_size=options.img_size,
        num_workers=options.workers,
        compile=options.compile,
        frames=options.frames if options.video else None,
    )


def draw_clips(folder: Path, count: int) -> None:
    """Clips of H.264 in one class: smooth noise that moves."""
    from benchmarks.motion import FRAMES, SIDE, write_clip

    generator = np.random.default_rng(0)
    (folder / "train" / "a").mkdir(parents=True)
    for number in range(count):
        coarse = generator.integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
        still = coarse.repeat(8, axis=0).repeat(8, axis=1)
        frames = np.stack([np.roll(still, 2 * time, axis=1) for time in range(FRAMES)])
        write_clip(folder / "train" / "a" / f"{number}.mp4", frames)


def draw(folder: Path, count: int) -> None:
    """JPEGs of smooth noise in one class: they take about as long to decode as photographs."""
    from PIL import Image

    generator = np.random.default_rng(0)
    (folder / "train" / "a").mkdir(parents=True)
    for number in range(count):
        width, height = generator.integers(*IMAGE_SIDES, 2, endpoint=True).tolist()
        coarse = generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        fine = generator.integers(-12, 13, (height, width, 3))
        pixels = np.clip(np.asarray(smooth) + fine, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "train" / "a" / f"{number}.jpg", quality=90)


class Held(DecodePool):
    """Gives what was decoded before, batch by batch: all that is left of decoding is a copy."""

    def __init__(self, rules: Preprocessing, pixels: Sequence[torch.Tensor]) -> None:
        super().__init__(rules, workers=0)
        self._pixels = pixels

    def batches(
        self, groups: Iterable[Sequence[Path | Media]], *, pad_to: int
    ) -> Iterator[DecodedBatch]:
        """The batches in their order, whose rows are those of ``groups``."""
        for _, pixels in zip(groups, self._pixels, strict=True):
            assert len(pixels) == pad_to
            yield DecodedBatch(pixels.numpy().copy(), ())


class Contest:
    """One extraction and the forward in it, each of which can be run again and again."""

    def __init__(self, config: ExtractConfig) -> None:
        self._inputs = gather_inputs(config)
        self._device = self._inputs.compute.device
        wanted = wanted_plan(self._inputs)
        self._statistics = Extraction(self._inputs, config.store, wanted).calibrate()
        self.plan: Plan = calibrated(wanted, self._statistics)
        rules = self._inputs.backbone.preprocessing
        began = time.process_time()
        # Of clips in this process, where the seconds of the processors can be counted.
        self._batches = self._decoded(workers=1 if rules.clip is None else 0)
        self.decode_seconds = time.process_time() - began
        self._held = None if rules.clip is None else Held(rules, self._batches)
        self.cpu: dict[str, list[float]] = {BARE: [], LOSA: []}
        self.bare()

    def contenders(self) -> dict[str, Callable[[], float]]:
        """Each runs once and returns its wall seconds."""
        return {
            BARE: lambda: self._timed(BARE, self.bare),
            LOSA: lambda: self._timed(LOSA, self.extract),
        }

    def bare(self) -> None:
        """The forward of every batch, and nothing else."""
        for pixels in self._batches:
            self._inputs.backbone(pixels)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def extract(self) -> None:
        """A whole extraction; what it writes is removed before the next."""
        place, dtype = self._inputs.config.store, self.plan.spec.dtype
        create_store(place, self.plan, self._inputs.dataset.splits, self._statistics.arrays(dtype))
        extraction = Extraction(self._inputs, place, self.plan)
        extraction.write(pool=self._held)
        extraction.seal()

    def calibrate(self) -> float:
        """Seconds of one calibration."""
        started = time.perf_counter()
        Extraction(self._inputs, self._inputs.config.store, self.plan).calibrate()
        return time.perf_counter() - started

    def _timed(self, name: str, run: Callable[[], None]) -> float:
        shutil.rmtree(self._inputs.config.store, ignore_errors=True)
        os.sync()  # nobody pays for what another one has left to the kernel
        worked, started = processor_seconds(), time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        self.cpu[name].append(processor_seconds() - worked)
        return seconds

    def _decoded(self, *, workers: int) -> list[torch.Tensor]:
        """Pixels of every batch of the store, on the device."""
        tasks = [ShardTask(name, 0, 0, split.rows) for name, split in self.plan.splits.items()]
        source = RowSource(self._inputs.dataset, self.plan, "fail")
        with DecodePool(self._inputs.backbone.preprocessing, workers=workers) as pool:
            batches = source.batches(pool, tasks)
            return [torch.from_numpy(each.decoded.pixels).to(self._device) for each in batches]


def measured(config: ExtractConfig, count: int, target: float) -> dict[str, Any]:
    """Both contenders in turns, their ratio, and what calibration adds."""
    contest = Contest(config)
    note(f"{config.model}: {contest.plan.spec.sample_bytes / 1e6:.2f} MB a row")
    times = rounds.in_turns(contest.contenders(), count)
    calibration = contest.calibrate()
    rows = sum(split.rows for split in contest.plan.splits.values())
    seconds = rounds.table(times, rows * contest.plan.spec.sample_bytes)
    cost = costs(times)
    hit = cost["best"] <= target
    others = f"median {cost['median']:.3f}, paired {cost['paired']:.3f}"
    note(f"cost: {cost['best']:.3f} ({others}), target {target:g}: {rounds.outcome(hit=hit)}")
    worked = costs(contest.cpu)
    note(f"    cpu {worked['best']:.3f} (median {worked['median']:.3f})")
    decode: dict[str, Any] = {}
    if config.frames is not None:
        spent = contest.decode_seconds
        share = spent / (spent + statistics.median(contest.cpu[LOSA]))
        note(f"decoding: {spent:.2f} s of the processors, {100 * share:.1f} % with the extraction")
        decode = {"decode": {"cpu_seconds": round(spent, 3), "share": round(share, 4)}}
    return decode | {
        "rows": rows,
        "batch_size": contest.plan.numerics.batch_size,
        "seconds": seconds,
        "cost": cost | {"target": target, "hit": hit},
        "cpu_cost": worked,
        "calibration": {"rows": min(rows, config.calibration_rows), "seconds": calibration},
    }


def costs(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Extraction over the bare forward: of the best rounds, the medians, and paired by round.

    Example:
        >>> costs({BARE: [1.0, 2.0, 4.0], LOSA: [1.5, 2.0, 5.0]})
        {'best': 1.5, 'median': 1.0, 'paired': 1.25}
    """
    pairs = [ours / bare for bare, ours in zip(times[BARE], times[LOSA], strict=True)]
    return {
        "best": round(min(times[LOSA]) / min(times[BARE]), 4),
        "median": round(statistics.median(times[LOSA]) / statistics.median(times[BARE]), 4),
        "paired": round(statistics.median(pairs), 4),
    }


def processor_seconds() -> float:
    """Seconds that this process and its ended children have worked, all threads together.

    In microseconds: ``os.times`` counts ticks of 10 ms, of which a short forward has none.
    """
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def memory_growth(folder: Path, images: int) -> dict[str, Any]:
    """Anonymous memory of whole commands on ``images`` images, and on :data:`MORE` as many."""
    module = memory.MODULES["extract"]
    imports, seen = memory.after_imports(module), []
    for count in (images, MORE * images):
        pictures, store = folder / f"pictures-{count}", folder / f"images-{count}.zarr"
        memory.draw(pictures, count)
        model = ("--model", "vit_tiny_patch16_224", "--weights", "random", "--img-size", "32")
        data = ("--dataset", f"folder:{pictures}", "--store", str(store), "--device", "cpu")
        sizes = ("--batch-size", str(BATCH))
        peak = memory.watch((*memory.LOSA, "extract", *model, *data, *sizes))
        seen.append({"imports": imports, "peak": peak})
    return memory.compared("extract", BATCH * row_bytes(store), *seen)


def row_bytes(store: Path) -> int:
    """Bytes of a row of a store."""
    return open_store(store).spec.sample_bytes
