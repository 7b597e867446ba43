"""The command that trains a trial again, to the same weights on the same class of machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from losa.adapt.rundir import INDIFFERENT
from losa.config import AdaptConfig

WITHOUT_FLAG: Final = frozenset(
    {"live", "warmup_epochs", "clip", "read_threads", "prefetch", "checkpoint_seconds"}
)
"""Fields of ``losa adapt`` that only a configuration file sets."""

_GIVEN: Final = ("store", "targets")


def adapt_command(config: Mapping[str, Any], run: Path, out: Path) -> str:
    """``losa adapt`` with each flag that is not at its default.

    What decides a result and has no flag is left to the trial's own ``config.yaml`` in ``run``.

    Example:
        >>> adapt_command({"store": "a b.zarr", "rank": 2, "seed": 1}, Path("x"), Path("best"))
        "losa adapt --store 'a b.zarr' --rank 2 --seed 1 --out best"
    """
    defaults = AdaptConfig().model_dump(mode="json")
    changed = {
        name: value
        for name, value in config.items()
        if value != defaults.get(name) and (name not in INDIFFERENT or name in ("live", *_GIVEN))
    }
    if changed.keys() & WITHOUT_FLAG or changed.keys() - defaults.keys():
        return shlex.join(
            ["losa", "adapt", "--config", f"{run / 'config.yaml'}", "--out", f"{out}"]
        )
    words = ["losa", "adapt", "--store", str(config.get("store", defaults["store"]))]
    for name, value in changed.items():
        if name != "store":
            words += _flag(name, value)
    return shlex.join([*words, "--out", str(out)])


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]
