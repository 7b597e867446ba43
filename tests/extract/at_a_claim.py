"""``losa``, which sends itself a signal once it holds the n-th shard that it claims.

``python -m tests.extract.at_a_claim N SIGNAL`` and the words of a command. A tiny shard is done in
milliseconds: whoever watches from outside for its claim may miss every one of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from losa.cli import main
from losa.store.claims import Claims, ShardTask


def signalling(
    take: Callable[[Claims, ShardTask], bool], number: int, signal: int
) -> Callable[[Claims, ShardTask], bool]:
    """``take``, which counts the shards it was given."""
    taken: list[ShardTask] = []

    def take_and_count(claims: Claims, task: ShardTask) -> bool:
        if not take(claims, task):
            return False
        taken.append(task)
        if len(taken) == number:
            os.kill(os.getpid(), signal)
        return True

    return take_and_count


if __name__ == "__main__":
    setattr(Claims, "take", signalling(Claims.take, int(sys.argv.pop(1)), int(sys.argv.pop(1))))  # noqa: B010 -- of this process alone
    main()
