"""Threads for many small independent pieces of work, each of which uses one core alone.

A small product on several cores costs more in waiting than it saves; several such products at once
do not wait for each other. Threads that torch has used itself spin for a while after their work, so
that whoever calls often between torch's own products has half a machine: call seldom, with much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew:
    """As many threads as torch has on a CPU; elsewhere none, and all is done in turn.

    Example:
        >>> with Crew(torch.device("cpu")) as crew:
        ...     crew.each(abs, [-1, -2])
        [1, 2]
    """

    def __init__(self, device: torch.device) -> None:
        self.count = torch.get_num_threads() if device.type == "cpu" else 1
        self._pool: ThreadPoolExecutor | None = None
        if self.count > 1:
            # In every one of them: how many threads torch uses is a setting of a thread.
            self._pool = ThreadPoolExecutor(
                self.count, "losa-trial", initializer=torch.set_num_threads, initargs=(1,)
            )

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results of a piece of work for each item, in their order."""
        if self._pool is None or len(items) <= 1:
            return [work(item) for item in items]
        # And of the whole process, as far as its BLAS is concerned.
        torch.set_num_threads(1)
        try:
            return list(self._pool.map(work, items))
        finally:
            torch.set_num_threads(self.count)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
