"""Mending a store: what can be derived is written again, what cannot is set aside to be extracted.

What to do is worked out from a deep verification before anything is touched, in an order in which
a crash at any moment leaves a store that a second repair mends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from losa.errors import StoreError
from losa.store import files, layout, lock, system
from losa.store.damage import Problem, record_checks, record_objects, record_sizes, held_rows
from losa.store.derived import status_bytes
from losa.store.evidence import Evidence
from losa.store.seal import seal_bytes, seal_store
from losa.store.skeleton import spared_objects
from losa.store.verify import Examination, Progress, examine_store

Act = Literal["quarantine", "write", "seal"]
_SEALED: Final = layout.SEALED_OBJECT


@dataclass(frozen=True, slots=True)
class Action:
    """One step of a repair: what is done to which file, and why."""

    act: Act
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair does, or would do.

    ``extract`` lists the shards that extraction has to compute afterwards. ``store_id`` is that of
    the sealed store, ``old_id`` the one it had before, where that seal was sound.
    """

    actions: tuple[Action, ...]
    problems: int
    extract: tuple[tuple[str, int], ...]
    acted: bool
    old_id: str | None
    store_id: str | None
    quarantine: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "acted": self.acted,
            "problems": self.problems,
            "actions": [asdict(action) for action in self.actions],
            "extract": [list(where) for where in self.extract],
            "quarantine": self.quarantine,
            "old_id": self.old_id,
            "store_id": self.store_id,
            "same_id": None if None in (self.old_id, self.store_id) else self.old_id == self.store_id,
        }
