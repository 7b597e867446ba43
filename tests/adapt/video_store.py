"""A store of clips in memory whose classes differ in the order of their time steps alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from losa.features import FeatureSpec, StoreDtype, TokenGrid
from tests.adapt.memory_store import MemoryStore, raw_of, separable_store

STEPS = 4
PER_STEP = TokenGrid(2, 2, time=STEPS, prefix=STEPS, is_prefix_per_step=True)
PER_CLIP = TokenGrid(2, 2, time=STEPS, prefix=1)


def ordered_store(grid: TokenGrid = PER_STEP, dtype: StoreDtype = "float16") -> MemoryStore:
    """Clips that show the same patterns forwards or backwards, under seeded noise.

    Which token is of which step is counted here anew, one by one.
    """
    store = separable_store(dtype=dtype, classes=2)
    spec = FeatureSpec("tiny", (1, 3), grid, 6, dtype)
    random = np.random.default_rng(5)
    patterns = 2.0 * random.standard_normal((grid.time, 6))
    members = {}
    for name, split in store.members.items():
        planes = 0.3 * random.standard_normal((2, split.rows, grid.num_tokens, 6))
        for row, label in enumerate(split.labels.tolist()):
            shown = patterns if label == 0 else patterns[::-1]
            for step in range(grid.time):
                first = grid.prefix + step * 4
                planes[:, row, first : first + 4] += shown[step]
                if grid.is_prefix_per_step:
                    planes[:, row, step] += shown[step]
        raw, scales = raw_of(planes, dtype, (0, 0))
        members[name] = replace(split, spec=spec, planes=raw, scales=scales)
    return replace(store, spec=spec, members=members)
