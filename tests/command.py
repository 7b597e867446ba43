"""What a command of losa printed and returned, for tests that run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The one JSON line of stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


Losa = Callable[..., Result]
