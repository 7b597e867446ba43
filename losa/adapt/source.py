"""What training asks of a store: the reader's interface, whatever holds the rows.

``losa.store`` fulfils it with a directory of shards; a test fulfils it with arrays in memory.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float16, Int32, Int64, Shaped, UInt8

from losa.features import FeatureSpec, Sample
from losa.store import Calibration, Plan
from losa.store.order import EpochOrder

READABLE: Final = 1
"""The status of a row whose sample was read; every other one says why it was skipped."""


@runtime_checkable
class RowReader(Protocol):
    """The rows of one split."""

    @property
    def rows(self) -> int:
        """Number of rows, skipped ones included."""
        ...

    @property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Class of each row."""
        ...

    @property
    def status(self) -> UInt8[np.ndarray, "n"]:
        """:data:`READABLE`, or why the row was skipped."""
        ...

    @property
    def source_index(self) -> Int64[np.ndarray, "n"]:
        """Position of each row in the data set's listing."""
        ...

    @property
    def views(self) -> UInt8[np.ndarray, "n"]:
        """Which view of its sample each row is; 0 is the clean one."""
        ...

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The data set's listing."""
        ...

    @property
    def raw_dtype(self) -> np.dtype[np.generic]:
        """What a feature is on disk: float16, int8, float32, or uint16 for bfloat16."""
        ...

    def read_into(
        self,
        rows: Int64[np.ndarray, "b"],
        taps: tuple[int, ...],
        out: Shaped[np.ndarray, "k b l d"],
        scales: Float16[np.ndarray, "k b l"] | None = None,
    ) -> None:
        """Fill ``out``, a contiguous array of :attr:`raw_dtype`; safe to call from threads.

        int8 fills ``scales`` too, the scale of each token.
        """
        ...

    def follow(self, order: EpochOrder | None, taps: tuple[int, ...], start: int) -> None:
        """Be told what will be read next: rows of ``order`` from ``start`` on, at ``taps``.

        ``None``: rows in an order that nobody tells.
        """
        ...


@runtime_checkable
class FeatureSource(Protocol):
    """A sealed store of features."""

    @property
    def spec(self) -> FeatureSpec:
        """What the features of one sample are."""
        ...

    @property
    def store_id(self) -> str:
        """The store's identity, which a run records."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; label ``i`` is ``classes[i]``."""
        ...

    @property
    def plan(self) -> Plan:
        """How the features came about."""
        ...

    def calibration(self, taps: tuple[int, ...]) -> Calibration:
        """Statistics of each tap's channels, and what else :mod:`losa.precision` needs."""
        ...

    def split(self, name: str) -> RowReader:
        """The rows of one split."""
        ...
