"""Which view of each sample an epoch shows: drawn from the seed, the epoch and the sample alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from losa.adapt.source import RowReader
from losa.store.order import view_draw


class ViewDraw:
    """One of the given rows for each of their samples, another one every epoch.

    A sample's rows are equally likely, and those of another sample do not matter: a view that could
    not be read, and is not among them, leaves its share to the others.

    Args:
        split: where the rows lie.
        rows: ascending, of any number of views of a sample.
        seed: of the run.
    """

    def __init__(self, split: RowReader, rows: Int64[np.ndarray, "n"], seed: int) -> None:
        self._rows = rows
        self._seed = seed
        self.samples = len(rows)
        # Where each sample has one view there is nothing to draw, nor to read of any column.
        self._is_drawn = bool(split.views.any())
        if self._is_drawn:
            source = split.source_index[rows]
            order = np.lexsort((split.views[rows], source))
            self._grouped = rows[order]
            self._chosen, self._first, self._count = np.unique(
                source[order], return_index=True, return_counts=True
            )
            self._listed = len(split.samples)
            self.samples = len(self._chosen)

    def rows(self, epoch: int) -> Int64[np.ndarray, "n"]:
        """The rows that an epoch shows, ascending."""
        if not self._is_drawn:
            return self._rows
        words = view_draw(self._listed, self._seed, epoch)[self._chosen]
        place = self._first + (words % self._count.astype(np.uint64)).astype(np.int64)
        rows: Int64[np.ndarray, "n"] = np.sort(self._grouped[place])
        return rows
