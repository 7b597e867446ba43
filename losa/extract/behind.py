"""A thread that finishes what another one begins: in order, with only so much on the way.

What waits here waits in C: an interrupt may come at any moment, and leaves no lock behind.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Behind(Generic[Item]):
    """Acts on items one after another, in a thread of its own, until the ``with`` block ends.

    An error of the thread is raised where the next item is announced, or at the end of the block;
    nothing is acted on after it. If the block ends by an error, what has not begun is dropped.

    Args:
        act: what becomes of an item.
        depth: items that may be on the way at once, the one that is acted on among them.

    Example:
        >>> seen = []
        >>> with Behind(seen.append, depth=2) as behind:
        ...     for item in range(4):
        ...         behind.reserve()
        ...         behind.put(item)
        >>> seen
        [0, 1, 2, 3]
    """

    def __init__(self, act: Callable[[Item], None], *, depth: int) -> None:
        self.depth = depth
        self._act = act
        self._items: SimpleQueue[tuple[Item] | None] = SimpleQueue()
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._free.put(None)
        self._error: BaseException | None = None
        self._is_dropped = False
        self._thread = Thread(target=self._run, name="losa-behind")

    def __enter__(self) -> Behind[Item]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._is_dropped = kind is not None
        self._items.put(None)
        try:
            self._thread.join()
        except BaseException:
            # Whoever cleans up next must be alone with what the thread works on.
            self._is_dropped = True
            self._thread.join()
            raise
        if kind is None:
            self._check()

    def reserve(self) -> None:
        """Wait until one more item may be on its way; each :meth:`put` needs one of these."""
        self._check()
        self._free.get()
        self._check()

    def put(self, item: Item) -> None:
        """Hand an item over."""
        self._items.put((item,))

    def _check(self) -> None:
        """Raise what the thread met."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        # Whatever goes wrong, items are taken until the end: nobody may wait for room forever.
        while (boxed := self._items.get()) is not None:
            if self._error is None and not self._is_dropped:
                try:
                    self._act(*boxed)
                except BaseException as error:
                    self._error = error
            del boxed
            self._free.put(None)
