"""M13: what does a training step of the side network cost?

Question: how long does a step take (forward, loss, backward, clip, AdamW) against the plain eager
module, against ``torch.compile`` of it, and against what no implementation can go below; and how
much does it keep for its backward?
Method: one batch of random planes, as a store of each dtype holds them, in memory; rounds are
interleaved, and a round is some steps of each. The plain module decodes the batch first. The floor
is the larger of two times that are measured in the same rounds: a copy of the stored planes (read
once forward, once backward), and the fewest FLOPs at the rate of a large GEMM.
``--video``: a clip's planes, in the same way: space and time mixed apart, plainly and in one
stream, beside a network that mixes all tokens at once. No target: it tells what mixing apart costs.
Ratio against: the plain module (target >= 3), the floor (target <= 4), and bytes kept against the
low-rank hidden units (target <= 1.5).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch

from benchmarks import rounds
from benchmarks.record import note, publish
from benchmarks.sidestep import (
    GEMM,
    Shape,
    Step,
    batch_of,
    best_seconds,
    copying,
    decoded_first,
    multiplying,
    network,
    profile,
    seconds,
)
from losa.features import StoreDtype

SHAPES: Final = {
    "4x101x384": Shape(4, 101, 384, 32),
    "4x65x384": Shape(4, 65, 384, 32),
    "4x257x1408": Shape(4, 257, 1408, 8),
}
CASES: Final[tuple[tuple[str, StoreDtype], ...]] = (
    ("4x101x384", "float32"),
    ("4x101x384", "float16"),
    ("4x101x384", "int8"),
    ("4x65x384", "float16"),
    ("4x257x1408", "float16"),
)
CLIPS: Final = Shape(4, 16 * 65, 384, 32, rank=16, steps=16)
JOINT: Final = "all tokens at once"
PLAIN: Final = "plain eager"
COMPILED: Final = "plain, torch.compile"
FUSED: Final = "losa"
COPY: Final = "copy of the stored planes"
PRODUCT: Final = f"product of {GEMM} x {GEMM}"
FASTER: Final = 3.0
FLOOR: Final = 4.0
KEPT: Final = 1.5
BARE_REPEATS: Final = 5
TOLERANCE: Final = 1e-4


def main(argv: list[str]) -> int:
    """Measure, print tables, and publish ``results/step.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks step")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=1, help="steps of each a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--only", type=int, default=len(CASES), help="how many of the cases")
    parser.add_argument("--video", action="store_true", help="of a clip's planes")
    parser.add_argument("--batch", type=int, default=CLIPS.batch, help="of --video")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    if options.video:
        found = measured_clips(replace(CLIPS, batch=options.batch), options)
        publish("step", argv, {"threads": options.threads, **found}, variant="_video")
        return 0
    cases: dict[str, Any] = {}
    for name, dtype in CASES[: options.only]:
        note(f"{name} {dtype}, batches of {SHAPES[name].batch}, rank {SHAPES[name].rank}")
        is_first = not cases
        is_compiled = is_first and not options.no_compile and shutil.which("g++") is not None
        cases[f"{name} {dtype}"] = measured(SHAPES[name], dtype, options, is_compiled=is_compiled)
    hits = next(iter(cases.values()))["hits"]
    publish("step", argv, {"threads": options.threads, "cases": cases, "hits": hits})
    return 0


def measured_clips(shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, kept bytes and profiles of the ways to mix a clip."""
    cpu = torch.device("cpu")
    planes = batch_of(shape, "float16", cpu)
    steps = contenders(shape, planes, is_compiled=False)
    check(steps)
    joint = network(shape, cpu, is_joint=True)
    steps[JOINT] = Step(joint, joint, planes)
    kept = {name: step.saved_bytes() for name, step in steps.items()}
    runs = {name: partial(seconds, run, options.repeats, cpu) for name, run in steps.items()}
    for warm_up in runs.values():
        warm_up()
    times = rounds.in_turns(runs, options.rounds)
    rows = rounds.table(times, planes.raw.nbytes)
    ratios = {
        "faster": rounds.ratio(times, PLAIN, FUSED),
        "of_joint": rounds.ratio(times, FUSED, JOINT),
        "plain_of_joint": rounds.ratio(times, PLAIN, JOINT),
    }
    for name, ratio in ratios.items():
        note(f"{name}: {ratio['best']:.2f}")
    profiles = {name: profile(steps[name]) for name in (PLAIN, FUSED)}
    return {"seconds": rows, "ratios": ratios, "kept_bytes": kept, "profiles": profiles}


def measured(
    shape: Shape, dtype: StoreDtype, options: argparse.Namespace, *, is_compiled: bool
) -> dict[str, Any]:
    """Seconds, ratios, kept bytes and profiles of one case."""
    cpu = torch.device("cpu")
    planes = batch_of(shape, dtype, cpu)
    steps = contenders(shape, planes, is_compiled=is_compiled)
    check(steps)
    kept = {name: step.saved_bytes() for name, step in steps.items() if name != COMPILED}
    runs = {name: partial(seconds, run, options.repeats, cpu) for name, run in steps.items()}
    for name, bare in ((COPY, copying(planes)), (PRODUCT, multiplying(cpu))):
        runs[name] = partial(best_seconds, bare, BARE_REPEATS, cpu)
    for warm_up in runs.values():
        warm_up()
    times = rounds.in_turns(runs, options.rounds)
    profiles = {name: profile(steps[name]) for name in (PLAIN, FUSED)}
    return report(shape, times, kept, planes.raw.nbytes) | {"profiles": profiles}


def contenders(shape: Shape, planes: Any, *, is_compiled: bool) -> dict[str, Step]:
    """Steps of networks with the same weights."""
    cpu = torch.device("cpu")
    plain, fused = network(shape, cpu), network(shape, cpu)
    found = {PLAIN: Step(plain, decoded_first(plain.plain), planes)}
    if is_compiled:
        another = network(shape, cpu)
        run: Callable[[torch.Tensor], torch.Tensor] = torch.compile(another.plain)
        found[COMPILED] = Step(another, decoded_first(run), planes)
    return found | {FUSED: Step(fused, fused, planes)}


def check(steps: dict[str, Step]) -> None:
    """Make sure that all compute the same loss."""
    losses = {name: float(step.loss().detach()) for name, step in steps.items()}
    assert max(losses.values()) - min(losses.values()) < TOLERANCE, losses


def report(
    shape: Shape, times: rounds.Times, kept: dict[str, int], planes_bytes: int
) -> dict[str, Any]:
    """The table and the ratios, as JSON values."""
    rows = rounds.table(times, planes_bytes)
    flops = min(shape.fused_flops(), shape.plain_flops()) * shape.batch
    share = flops / (2 * GEMM**3)
    by_flops = [value * share for value in times[PRODUCT]]
    is_by_flops = min(by_flops) >= min(times[COPY])
    floors = {**times, "floor": by_flops if is_by_flops else times[COPY]}
    faster = rounds.verdict(
        "M13", rounds.ratio(times, PLAIN, FUSED), "times the plain module", FASTER
    )
    of_floor = 1 / rounds.ratio(floors, "floor", FUSED)["best"]
    hidden = {name: value / shape.batch / shape.hidden_bytes for name, value in kept.items()}
    hits = {"faster": faster["hit"], "floor": of_floor <= FLOOR, "kept": hidden[FUSED] <= KEPT}
    what = "products" if is_by_flops else "memory"
    note(f"M13: {of_floor:.2f} of the floor ({what}): {rounds.outcome(hit=hits['floor'])}")
    note(f"M13: keeps {hidden[FUSED]:.2f} of the hidden units: {rounds.outcome(hit=hits['kept'])}")
    compiled = rounds.ratio(times, COMPILED, FUSED) if COMPILED in times else None
    return {
        "seconds": rows,
        "ms_a_sample": {name: row["best"] / shape.batch * 1e3 for name, row in rows.items()},
        "to_plain": faster,
        "to_compiled": compiled,
        "of_floor": {"best": of_floor, "by": what, "flops_a_step": flops, "target": FLOOR},
        "plain_flops_a_step": shape.plain_flops() * shape.batch,
        "kept_bytes_a_sample": {name: value // shape.batch for name, value in kept.items()},
        "kept_of_hidden": {**hidden, "target": KEPT},
        "hits": hits,
    }
