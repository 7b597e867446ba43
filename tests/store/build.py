"""Small stores for tests: seeded features, written through the real writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from losa.features import FeatureSpec, Sample, StoreDtype, TokenGrid
from losa.store import Plan, StoreWriter, create_store
from losa.store.layout import RAW_DTYPES
from losa.store.plan import Numerics, SplitPlan


def small_plan(
    rows: dict[str, int] | None = None,
    dtype: StoreDtype = "float16",
    shard_rows: int = 8,
    views: int = 1,
) -> Plan:
    """A plan of two taps, 5 tokens and 6 channels; ``rows`` are of one view, which others join."""
    samples = rows or {"train": 20, "val": 8}
    rows = {name: count * (views if name == "train" else 1) for name, count in samples.items()}
    spec = FeatureSpec("toy", (1, 3), TokenGrid(2, 2, prefix=1), 6, dtype)
    return Plan(
        spec=spec,
        backbone={"model": "toy", "weights": "0" * 64, "tokens": "all"},
        preprocessing={"img_size": [28, 28]},
        dataset="toy",
        classes=("a", "b", "c"),
        splits={name: SplitPlan(samples[name], count, "1" * 64) for name, count in rows.items()},
        shard_rows=shard_rows,
        order_seed=0,
        calibration_rows=4,
        numerics=Numerics("cpu", None, 4),
        exponents=(0, 0),
        views=views,
        augment={"policy": "crop-flip", "rules": 1, "seed": 0} if views > 1 else None,
    )


def features(plan: Plan, split: str) -> np.ndarray:
    """The raw features ``[k n l d]`` of a split in row order, the oracle of every read."""
    seed = sorted(plan.splits).index(split)
    shape = (len(plan.spec.taps), plan.splits[split].rows, *plan.spec.shape[1:])
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if plan.spec.dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype("<u2")
    if plan.spec.dtype == "int8":
        return (values * 30).clip(-127, 127).astype("i1")
    return values.astype(RAW_DTYPES[plan.spec.dtype])


def token_scales(plan: Plan, split: str) -> np.ndarray | None:
    """The scales ``[k n l]`` of a split's tokens in row order; none but int8 stores have any."""
    if plan.spec.dtype != "int8":
        return None
    taps, tokens, _ = plan.spec.shape
    shape = (taps, plan.splits[split].rows, tokens)
    return np.random.default_rng(9).uniform(0.01, 0.1, shape).astype("<f2")


def samples(plan: Plan) -> dict[str, list[Sample]]:
    """Listed samples with labels that cycle through the classes."""
    return {
        name: [Sample(f"{name}/{i:03d}", f"{name}/{i:03d}.png", i % 3) for i in range(item.samples)]
        for name, item in plan.splits.items()
    }


def statistics(plan: Plan) -> dict[str, np.ndarray]:
    """Distinct calibration statistics ``[k d]``."""
    shape = (len(plan.spec.taps), plan.spec.channels)
    grid = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    arrays = {"mean": grid, "std": grid + 1, "absmax": grid + 2}
    return {**arrays, "channel": grid + 3} if plan.spec.dtype == "int8" else arrays


def begin_store(path: Path, plan: Plan, *, durable: bool = False) -> None:
    """Create the empty store of a plan."""
    create_store(path, plan, samples(plan), statistics(plan), durable=durable)


def fill_store(path: Path, plan: Plan, *, durable: bool = False) -> str:
    """Write every missing shard in batches of four rows, seal, and return the store's id."""
    with StoreWriter(path, durable=durable) as writer:
        for task in writer.claimed():
            planes, scales = features(plan, task.split), token_scales(plan, task.split)
            with writer.shard(task) as shard:
                for first in range(task.first, task.stop, 4):
                    stop = min(task.stop, first + 4)
                    shard.write(
                        list(planes[:, first:stop]),
                        np.ones(stop - first, np.uint8),
                        None if scales is None else list(scales[:, first:stop]),
                    )
        return writer.seal()


def small_store(path: Path, plan: Plan | None = None) -> Path:
    """A sealed small store at ``path``."""
    plan = plan or small_plan()
    begin_store(path, plan)
    fill_store(path, plan)
    return path


def tree(path: Path) -> dict[str, bytes]:
    """Every file below ``path`` with its content."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
