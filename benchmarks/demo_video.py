"""Question: does mixing along time find what single frames cannot tell, and what does it cost?

Method: the clips of ``benchmarks/motion.py`` go through ``losa extract`` as a user would have it:
every frame through the demo's DINOv2 ViT-S/14 at two of its shallow blocks, into three stores: of
all tokens, of 2 x 2 of them averaged, and of all tokens in int8. On each, adaptors train with
default settings but the rank, the learning rate and the epochs that this module names (the latter
two were chosen on val), and ``losa evaluate`` tests them; ``losa predict`` classifies some of the
clips from their files. Nothing is chosen on test.

Reported: top-1, trainable parameters, seconds of training, bytes of a clip in the store; of each
extraction its seconds, and of the first the share of the processors' time that decoding takes
(measured apart, on some clips, in one process). A picture in ``--out`` shows the accuracies and the
clips that were classified.

    python -m benchmarks demo_video
    python -m benchmarks demo_video --record
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.motion import CLASSES, COUNTS, FRAMES, motion
from benchmarks.motionplot import Prediction, picture
from benchmarks.record import attach, note, publish
from demo.__main__ import made, prepare
from demo.assets import CACHE
from demo.command import losa, program

STORES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "all tokens": (),
        "pool:1x2x2": ("--tokens", "pool:1x2x2"),
        "int8": ("--store-dtype", "int8"),
    }
)
"""Flags of ``losa extract`` by what the store keeps."""

FIRST: Final = "all tokens"
RANK: Final = ("--rank", "16")
"""Of mixers; the default of 32 would take longer to train, and all this is to take minutes."""

TRIALS: Final[Sequence[tuple[str, str, Sequence[str]]]] = (
    ("linear", FIRST, ("--adaptor", "linear")),
    ("linear-all", FIRST, ("--adaptor", "linear-all")),
    ("losa, space alone", FIRST, (*RANK, "--token-mixing", "space")),
    ("losa, space and time", FIRST, RANK),
    ("losa, space and time", "pool:1x2x2", RANK),
    ("losa, space and time", "int8", RANK),
)
"""Name, store, and flags of ``losa adapt``; the one of space and time on all tokens predicts."""

TIMED: Final = 60
"""Clips that are decoded to measure what decoding takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one adaptor reached on one store, and what it cost; accuracies in 0..1."""

    adaptor: str
    store: str
    val: float
    test: float
    trainable: int
    seconds: float
    clip_bytes: int


@program
def main(argv: list[str]) -> int:
    """Run the demo of clips; returns the exit code."""
    started = time.perf_counter()
    options = _options(argv)
    clips = motion(options.cache)
    weights = prepare(options.cache)
    extracted = {name: _extracted(name, clips, weights, options) for name in STORES}
    outcomes = [_outcome(trial, extracted, options) for trial in TRIALS]
    share = decode_share(clips, extracted[FIRST])
    run = _run(options.out, *next(trial for trial in TRIALS if trial[1:] == (FIRST, RANK))[:2])
    shown = _predicted(run, weights, _store(options.out, FIRST), clips)
    drawn = picture([(f"{one.adaptor}\n{one.store}", one.test) for one in outcomes], shown)
    (options.out / "motion.png").write_bytes(drawn)
    seconds = time.perf_counter() - started
    for line in (table(outcomes), *_costs(extracted, share)):
        note(line)
    note(f"clips    {clips}\nbackbone {weights}\npicture  {options.out / 'motion.png'}")
    note(f"all done in {seconds:.0f} s")
    if options.record:
        attach("demo_video.png", drawn)
        details = {"counts": dict(COUNTS), "frames": FRAMES, "chance": 1 / len(CLASSES)}
        settings = {name: getattr(options, name) for name in ("img_size", "taps", "lr", "epochs")}
        # By name alone: where stores lie is nobody's business but this machine's.
        stores = {
            name: {**found, "store": Path(found["store"]).name} for name, found in extracted.items()
        }
        costs = {"extractions": stores, "decode_share": share, "seconds": round(seconds, 1)}
        results = {"results": [asdict(outcome) for outcome in outcomes]}
        publish("demo_video", argv, {**details, **settings, **costs, **results})
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks demo_video")
    parser.add_argument("--img-size", type=int, default=84, help="a multiple of 28 (default 84)")
    parser.add_argument("--taps", default="2,5", help="blocks whose features are kept")
    parser.add_argument("--lr", type=float, default=1e-2, help="of every adaptor")
    parser.add_argument("--epochs", type=int, default=12, help="of every adaptor")
    parser.add_argument("--out", type=Path, default=Path("runs/video"), help="what it writes")
    parser.add_argument("--cache", type=Path, default=CACHE, help="what it fetches and renders")
    parser.add_argument(
        "--record", action="store_true", help="write benchmarks/results/demo_video.*"
    )
    return parser.parse_args(argv)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table of markdown.

    Example:
        >>> print(table([Outcome("linear", "int8", 0.1, 0.0833, 4632, 1.25, 352_512)]))
        | adaptor | store | val % | test % | parameters | seconds | kB a clip |
        |---|---|---|---|---|---|---|
        | linear | int8 | 10.0 | 8.3 | 4,632 | 1.2 | 352.5 |
    """
    heading = ("adaptor", "store", "val %", "test %", "parameters", "seconds", "kB a clip")
    lines = [heading, tuple("---" for _ in heading), *(_cells(one) for one in outcomes)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace(" --- ", "---")


def _cells(one: Outcome) -> tuple[str, ...]:
    return (
        *(one.adaptor, one.store, f"{100 * one.val:.1f}", f"{100 * one.test:.1f}"),
        *(f"{one.trainable:,}", f"{one.seconds:.1f}", f"{one.clip_bytes / 1e3:.1f}"),
    )


def _store(out: Path, name: str) -> Path:
    return out / f"{name.replace(' ', '-').replace(':', '')}.zarr"


def _run(out: Path, adaptor: str, store: str) -> Path:
    return out / "-".join(f"{adaptor} {store}".replace(",", "").replace(":", "").split())


def _extracted(
    name: str, clips: Path, weights: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Extract one store, or find it; what the command says of it."""
    return made(
        *("extract", "--model", "dinov2_s", "--weights", str(weights)),
        *("--dataset", f"folder:{clips}", "--frames", str(FRAMES)),
        *("--img-size", str(options.img_size), "--taps", options.taps),
        *("--store", str(_store(options.out, name)), *STORES[name]),
    )


def _outcome(
    trial: tuple[str, str, Sequence[str]],
    extracted: Mapping[str, Mapping[str, Any]],
    options: argparse.Namespace,
) -> Outcome:
    """Train one adaptor on one store, and test it."""
    adaptor, name, flags = trial
    store, run = str(_store(options.out, name)), str(_run(options.out, adaptor, name))
    recipe = ("--lr", f"{options.lr:g}", "--epochs", str(options.epochs))
    report = made("adapt", "--store", store, "--out", run, *recipe, *flags)
    metrics = losa("evaluate", "--run", run, "--store", store, "--split", "test")
    return Outcome(
        adaptor=adaptor,
        store=name,
        val=report["metrics"]["val"]["top1"],
        test=metrics["top1"],
        trainable=report["parameters"]["trainable"],
        seconds=report["timing"]["seconds"],
        clip_bytes=extracted[name]["bytes"] // sum(COUNTS.values()),
    )


def decode_share(clips: Path, extracted: Mapping[str, Any]) -> float | None:
    """Share of the processors' time that an extraction decodes; ``None`` where it did not run."""
    from losa.extract.clips.loading import load_clip
    from losa.extract.media import Media
    from losa.extract.transforms import Preprocessing
    from losa.store import open_store

    if not extracted["computed_rows"]:
        return None
    rules = Preprocessing.from_json(open_store(Path(extracted["store"])).plan.preprocessing)
    files = sorted(clips.glob("train/*/*"))[:: max(1, COUNTS["train"] // TIMED)]
    seconds = []
    for file in files:
        begun = time.process_time()
        load_clip(Media(file), rules)
        seconds.append(time.process_time() - begun)
    # The median: the first clip also loads the decoder.
    spent = statistics.median(seconds) * extracted["computed_rows"]
    return float(spent / (extracted["seconds"] * len(os.sched_getaffinity(0))))


def _predicted(run: Path, weights: Path, store: Path, clips: Path) -> list[Prediction]:
    """Classify the first test clip of every other class from its file."""
    files = [sorted((clips / "test" / name).iterdir())[0] for name in CLASSES[1::2]]
    found = losa(
        *("predict", *map(str, files), "--run", str(run), "--weights", str(weights)),
        *("--store", str(store), "--json"),
    )
    told = [item["top"][0] for item in found["predictions"]]
    note(f"live logits against cached ones: {found['cache_check']}")
    return [
        Prediction(file, file.parent.name, best["class"], best["probability"])
        for file, best in zip(files, told, strict=True)
    ]


def _costs(extracted: Mapping[str, Mapping[str, Any]], share: float | None) -> list[str]:
    """What the extractions took, as lines."""
    lines = [
        f"extraction of {name}: {found['computed_rows']} clips in {found['seconds']:.0f} s"
        for name, found in extracted.items()
    ]
    if share is not None:
        lines.append(f"decoding took {100 * share:.1f} % of the processors' time in the first")
    return lines
