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

WINNER: Final = "winner"
"""The folder, beside a sweep's trials, that the winner's command trains in."""

_GIVEN: Final = ("store", "targets")


def adapt_command(config: Mapping[str, Any], run: Path, out: Path) -> str:
    """``losa adapt`` with each flag that is not at its default.

    What decides a result and has no flag is left to the trial's own ``config.yaml`` in ``run``,
    as is all that a flag cannot say: none at all, where something is the default.

    Example:
        >>> adapt_command({"store": "a b.zarr", "rank": 2, "seed": 1}, Path("x"), Path("best"))
        "losa adapt --store 'a b.zarr' --rank 2 --seed 1 --out best"
    """
    defaults = AdaptConfig().model_dump(mode="json")
    changed = {
        name: config[name]
        for name in [*(name for name in defaults if name in config), *(config.keys() - defaults)]
        if config[name] != defaults.get(name)
        and (name not in INDIFFERENT or name in ("live", *_GIVEN))
    }
    words = ["losa", "adapt"]
    if not config.get("live"):
        words += ["--store", str(config.get("store", defaults["store"]))]
    unsaid = {name for name, value in changed.items() if value is None}
    if unsaid or changed.keys() & WITHOUT_FLAG or changed.keys() - defaults.keys():
        return shlex.join([*words, "--config", str(run / "config.yaml"), "--out", str(out)])
    for name, value in changed.items():
        if name != "store":
            words += _flag(name, value)
    return shlex.join([*words, "--out", str(out)])


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]
