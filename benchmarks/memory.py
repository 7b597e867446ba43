"""M7: does ten times the data take more memory?

Question: by how much does the anonymous memory of a process that writes or reads a store grow when
the store has ten times the rows, and how much is it above a process that has only imported the
same modules?
Method: every measurement is a process of its own, so that nothing is left from the one before.
``RssAnon`` of ``/proc/PID/status``, summed over the process and all its children (decode workers;
what they import counts too), is looked at after the imports and after every batch; the most seen
counts. Writing streams random planes, made anew for every batch, through the store's writer;
reading runs a shuffled epoch through the training's ring and loader. Whole commands (``extract``
with a tiny random backbone, ``adapt``) are watched from outside, every 20 ms.
Ratio against: the process with a tenth of the rows (growth <= 2 %); absolute: at most 64 MB and
(prefetch + 2) batches of that very case's features above the imports of its one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.record import note, publish
from benchmarks.rounds import outcome
from benchmarks.stores import BATCH, VIT_B, begin, random_plan, scratch

ROOT: Final = Path(__file__).parents[1]
PROC: Final = Path("/proc")
PREFETCH: Final = 2
ALLOWED: Final = 64 * 10**6
MOST_GROWTH: Final = 0.02
SHARD_ROWS: Final = 64
EPOCHS: Final = 2
WHAT: Final = ("growth", "above_imports")
MODULES: Final = {"extract": "losa.extract.run", "adapt": "losa.adapt.train"}
LOSA: Final = (sys.executable, "-m", "losa")


def main(argv: list[str]) -> int:
    """Measure, print a table, and publish ``results/memory.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory")
    parser.add_argument("--rows", type=int, default=128, help="rows of the smaller store")
    parser.add_argument("--images", type=int, default=200, help="of the smaller data set; 0: none")
    parser.add_argument("--times", type=int, default=10, help="how much larger the larger one is")
    parser.add_argument("--dir", type=Path, default=None, help="where the stores are written")
    parser.add_argument("--child", choices=("write", "read"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(CHILDREN[options.child](options.dir, options.rows)))
        return 0
    with scratch(options.dir) as folder:
        found = {}
        for child in CHILDREN:
            pair = [in_child(child, folder, options.rows * factor) for factor in (1, options.times)]
            found[child] = compared(child, BATCH * VIT_B.sample_bytes, *pair)
        if options.images:
            found |= commands(folder, options.images, options.times)
    hits = {f"{name} {what}": item[f"{what}_hit"] for name, item in found.items() for what in WHAT}
    publish("memory", argv, {"times": options.times, "found": found, "hits": hits})
    return 0


def in_child(child: str, folder: Path, rows: int) -> dict[str, int]:
    """Run one measurement in a process of its own."""
    arguments = ["--child", child, "--dir", str(folder), "--rows", str(rows)]
    command = [sys.executable, "-m", "benchmarks", "memory", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, int] = json.loads(done.stdout)
    return result


def compared(
    name: str, batch_bytes: int, small: dict[str, int], large: dict[str, int]
) -> dict[str, Any]:
    """Growth of the most that was seen, what it is above the imports, and both verdicts."""
    growth = large["peak"] / small["peak"] - 1
    above = large["peak"] - large["imports"]
    allowed = ALLOWED + (PREFETCH + 2) * batch_bytes
    steady, modest = growth <= MOST_GROWTH, above <= allowed
    note(f"M7: {name:8} {small['peak'] / 1e6:7.1f} MB -> {large['peak'] / 1e6:7.1f} MB")
    note(f"    growth {growth:+.2%}, target {MOST_GROWTH:.0%}: {outcome(hit=steady)}")
    line = f"above the imports {above / 1e6:.1f} MB, target {allowed / 1e6:.1f}"
    note(f"    {line}: {outcome(hit=modest)}")
    return {
        "small": small,
        "large": large,
        "growth": round(growth, 4),
        "growth_hit": steady,
        "above_imports": above,
        "above_imports_hit": modest,
        "allowed_bytes": allowed,
    }


def anonymous(process: int | str = "self") -> int:
    """Bytes of anonymous memory that a process and its children hold; 0 when it is gone."""
    folder = PROC / str(process)
    try:
        lines = (folder / "status").read_text().splitlines()
        born = [path.read_text() for path in (folder / "task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    own = int(fields[0]) * 1024 if fields else 0
    return own + sum(anonymous(int(child)) for child in " ".join(born).split())


def write_child(folder: Path, rows: int) -> dict[str, int]:
    """Stream ``rows`` rows into a store at ``folder``."""
    from losa.store import StoreWriter

    imports = peak = anonymous()
    path = folder / f"{rows}.zarr"
    begin(path, random_plan(VIT_B, rows, SHARD_ROWS))
    generator = np.random.default_rng(0)
    taps, tokens, channels = VIT_B.shape
    with StoreWriter(path, durable=False) as writer:
        for task in writer.claimed():
            with writer.shard(task) as shard:
                for first in range(task.first, task.stop, BATCH):
                    count = min(BATCH, task.stop - first)
                    bits = generator.integers(0, 31744, (taps, count, tokens, channels), np.uint16)
                    shard.write(list(bits.view(np.float16)), np.ones(count, np.uint8))
                    peak = max(peak, anonymous())
        writer.seal()
    return {"imports": imports, "peak": max(peak, anonymous())}


def read_child(folder: Path, rows: int) -> dict[str, int]:
    """Read the shuffled epochs of the store that :func:`write_child` has left."""
    import torch

    from losa.adapt.loader import FeatureLoader
    from losa.adapt.ring import Ring, RingOptions
    from losa.store import open_store

    imports = peak = anonymous()
    store = open_store(folder / f"{rows}.zarr")
    split = store.split("train")
    options = RingOptions(BATCH, torch.device("cpu"), prefetch=PREFETCH)
    with Ring(store.spec, options) as ring:
        loader = FeatureLoader(split, np.flatnonzero(split.status == 1), ring, shuffle=True)
        for epoch in range(EPOCHS):
            for batch in loader.epoch(epoch):
                assert batch.features[:, :, 0, 0].isfinite().all()
                peak = max(peak, anonymous())
    return {"imports": imports, "peak": peak}


CHILDREN: Final = {"write": write_child, "read": read_child}


def commands(folder: Path, images: int, times: int) -> dict[str, Any]:
    """``extract`` and ``adapt`` on images of noise, few and many."""
    from losa.store import open_store

    imports = {name: after_imports(module) for name, module in MODULES.items()}
    seen: dict[str, list[dict[str, int]]] = {name: [] for name in MODULES}
    batch_bytes = 0
    for count in (images, images * times):
        pictures = folder / f"pictures-{count}"
        draw(pictures, count)
        store, run = folder / f"images-{count}.zarr", folder / f"run-{count}"
        model = ("--model", "vit_tiny_patch16_224", "--weights", "random", "--img-size", "32")
        data = ("--dataset", f"folder:{pictures}", "--store", str(store), "--device", "cpu")
        sizes = ("--batch-size", str(BATCH))
        peak = watch((*LOSA, "extract", *model, *data, *sizes))
        seen["extract"].append({"imports": imports["extract"], "peak": peak})
        training = ("--store", str(store), "--out", str(run), "--epochs", "2", "--device", "cpu")
        peak = watch((*LOSA, "adapt", *training, *sizes))
        seen["adapt"].append({"imports": imports["adapt"], "peak": peak})
        batch_bytes = BATCH * open_store(store).spec.sample_bytes
    return {name: compared(name, batch_bytes, *pair) for name, pair in seen.items()}


def draw(folder: Path, count: int) -> None:
    """Images of noise in two classes."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("train" if number % 5 else "val") / "ab"[number // 5 % 2]
        path.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{number}.png")


def watch(command: Sequence[str]) -> int:
    """The most anonymous memory that a command and its children ever held together."""
    quiet = subprocess.DEVNULL
    peak = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet) as process:
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return peak


def after_imports(module: str) -> int:
    """Anonymous memory of a process that has imported a module and does nothing."""
    command = (sys.executable, "-c", f"import {module}; print(flush=True); input()")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = anonymous(process.pid)
        process.communicate(b"\n")
    return found
