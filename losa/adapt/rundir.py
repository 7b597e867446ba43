"""The files of a run, who may write them, and what a second call finds there.

``config.yaml`` appears last of the files that begin a run and ``report.json`` last of all: a folder
without the first holds no run yet, and one with the second holds a finished one. Files that are not
ours are never touched.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from losa.adapt.adaptor import own_pool
from losa.adapt.checkpoint import CARD_NAME, AdaptorCard, load_card, save_card
from losa.adapt.registry import UNUSED_OPTIONS
from losa.adapt.report import AdaptReport, read_report, write_report
from losa.adapt.targets import Kind
from losa.config import AdaptConfig, checked, to_yaml
from losa.errors import LockedError, LosaError, MismatchError, StoreError
from losa.store.files import canonical_json, resource_error, sha256, write_atomic
from losa.store.plan import differing_fields

CONFIG_NAME: Final = "config.yaml"
REPORT_NAME: Final = "report.json"
METRICS_NAME: Final = "metrics.jsonl"
BEST_NAME: Final = "best.safetensors"
LAST_NAME: Final = "last.safetensors"
OURS: Final = (CONFIG_NAME, REPORT_NAME, LAST_NAME, BEST_NAME, METRICS_NAME, CARD_NAME)

# What may differ between a run and its resume: where things lie and how fast they go.
INDIFFERENT: Final = frozenset(
    {
        "store",
        "live",
        "targets",
        "out",
        "overwrite",
        "device",
        "read",
        "read_threads",
        "prefetch",
        "checkpoint_seconds",
    }
)

OF_OTHER_TASKS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "classes": ("regression_loss",),
    "labels": ("regression_loss",),
    "numbers": ("label_smoothing", "class_weights"),
}
"""Settings that mean nothing to a task."""

ADDED: Final = (
    *("data_seed", "start", "share_mixers", "init_scale"),
    *("token_mixing", "token_order", "time_rank", "clip_frames", "clip_stride"),
)
"""Fields that came after the first runs, whose defaults are what was done before."""


BY_TAP: Final = ("losa", "lst")
"""Networks that have one scale a tap unless told otherwise; docs/decisions/0017."""

AS_BEFORE: Final[Mapping[str, Any]] = {"rank": 8}
"""What a field that nothing looks at is recorded as, where its default has changed since."""


def effective(config: AdaptConfig, taps: tuple[int, ...], task: Kind = "classes") -> AdaptConfig:
    """The configuration as it acts: taps by number, what nothing looks at as by default.

    What ``auto`` stands for is said here, because it may stand for something else in time.
    """
    values: dict[str, Any] = {"taps": ",".join(map(str, taps))}
    names = (*ignored(config), *OF_OTHER_TASKS[task])
    values.update({name: unheeded(name) for name in names})
    acting = config.model_copy(update=values)
    if acting.standardise == "auto":
        kind = "tap" if acting.adaptor in BY_TAP else "store"
        acting = acting.model_copy(update={"standardise": kind})
    return acting.model_copy(update={"pool": own_pool(acting.adaptor, acting.pool)})


def unheeded(name: str) -> Any:
    """What a field is recorded as where nothing looks at it."""
    return AS_BEFORE.get(name, AdaptConfig.model_fields[name].default)


def ignored(config: AdaptConfig) -> tuple[str, ...]:
    """Names of the fields that have no effect on the adaptor."""
    return UNUSED_OPTIONS.get(config.adaptor, ())


def comparable(config: AdaptConfig, store_id: str, targets: str = "") -> dict[str, Any]:
    """What decides a run's result, as plain JSON values; store and targets count by identity."""
    without = INDIFFERENT.union(ignored(config))
    values = {k: v for k, v in config.model_dump(mode="json").items() if k not in without}
    for name in ADDED:
        # So that runs from before there was such a field are still the same runs.
        if getattr(config, name) == AdaptConfig.model_fields[name].default:
            values.pop(name, None)
    return {**values, "store_id": store_id, **({"targets": targets} if targets else {})}


def config_digest(config: AdaptConfig, store_id: str, targets: str = "") -> str:
    """sha256 of :func:`comparable`."""
    return sha256(canonical_json(comparable(config, store_id, targets)))


def default_out(config: AdaptConfig, store_id: str, targets: str = "") -> Path:
    """Where a run without ``--out`` lies: the same place whenever the same is asked for."""
    return Path("runs") / f"{config.adaptor}-{config_digest(config, store_id, targets)[:8]}"


def load_config(run_dir: Path) -> AdaptConfig:
    """The configuration of a run.

    Raises:
        StoreError: there is no run.
        InputError: its file is damaged.
    """
    path = run_dir / CONFIG_NAME
    if not path.is_file():
        raise StoreError(path, "does not exist", "give the folder of a run")
    return checked(AdaptConfig, {}, path)


def finished_run(
    config: AdaptConfig, taps: tuple[int, ...], store_id: str, task: Kind, targets: str
) -> AdaptReport | None:
    """The report of the very run that a configuration asks for, where that is finished already.

    For who would have to compute much before he could claim its folder.

    Args:
        config: with autocast as it is on the device.
        taps: that the adaptor sees.
        store_id: identity of the features.
        task: that is learnt.
        targets: identity of the file of targets, or nothing.

    Raises:
        StoreError: a file of the run is damaged.
    """
    acting = effective(config, taps, task)
    out = config.out or default_out(acting, store_id, targets)
    if config.overwrite or not (out / REPORT_NAME).exists():
        return None
    if comparable(acting, store_id, targets) != _comparable_in(out):
        return None
    return read_report(out / REPORT_NAME)


def _comparable_in(run_dir: Path) -> dict[str, Any]:
    """What decides the result of the run in a folder."""
    config, card = load_config(run_dir), load_card(run_dir)
    acting = effective(config, card.spec.taps, card.task)
    return comparable(acting, card.store_id, card.targets)


class RunDir:
    """A folder that holds exactly the run of one configuration, begun or finished."""

    def __init__(self, path: Path, card: AdaptorCard) -> None:
        self.path = path
        self.card = card
        self._lock: int | None = None

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @classmethod
    def claim(cls, config: AdaptConfig, card: AdaptorCard) -> RunDir:
        """Begin the run at ``config.out``, or find it there; ``overwrite`` begins it afresh.

        Raises:
            MismatchError: the folder holds a run of another configuration; its fields are named.
            StoreError: its files are damaged.
            ResourceError: the folder cannot be made.
            LockedError: another process is training in it.
        """
        assert config.out is not None
        run = cls(config.out, card)
        try:
            run._begin_or_join(config)
        except BaseException as error:
            run.__exit__()
            if isinstance(error, OSError) and not isinstance(error, LosaError):
                raise resource_error(run.path, error) from None
            raise
        return run

    @property
    def best(self) -> Path:
        """The weights that val chose."""
        return self.path / BEST_NAME

    @property
    def last(self) -> Path:
        """The snapshot that a resume continues from."""
        return self.path / LAST_NAME

    @property
    def metrics(self) -> Path:
        """One line an epoch."""
        return self.path / METRICS_NAME

    def report(self) -> AdaptReport | None:
        """The report of a finished run."""
        path = self.path / REPORT_NAME
        return read_report(path) if path.exists() else None

    def finish(self, report: AdaptReport) -> None:
        """Write the report, which says that the run is whole."""
        write_report(self.path / REPORT_NAME, report)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl`` and make it durable."""
        with self.metrics.open("ab") as handle:
            handle.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())

    def metrics_bytes(self) -> int:
        """Size of ``metrics.jsonl``."""
        return self.metrics.stat().st_size if self.metrics.exists() else 0

    def rewind_metrics(self, size: int) -> None:
        """Drop the lines that were written after the snapshot a resume continues from.

        Raises:
            StoreError: lines that the snapshot knows of are gone.
        """
        found = self.metrics_bytes()
        if found < size:
            raise StoreError(
                self.metrics, f"is {found} bytes, not {size}", "train again with --overwrite"
            )
        if found:
            os.truncate(self.metrics, size)

    def _begin_or_join(self, config: AdaptConfig) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._hold()
        if config.overwrite or not (self.path / CONFIG_NAME).exists():
            self._clear()
        if (self.path / CONFIG_NAME).exists():
            before = load_config(self.path)
            self._check_same(config, before)
            places = {"store": config.store, "targets": config.targets}
            if before.model_copy(update=places) != before:
                # Wherever these have gone, this is where they are now.
                self._write_config(before.model_copy(update=places))
            return
        save_card(self.path, self.card)
        self._write_config(config.model_copy(update={"overwrite": False}))

    def _write_config(self, config: AdaptConfig) -> None:
        write_atomic(self.path / CONFIG_NAME, to_yaml(config).encode())

    def _hold(self) -> None:
        """Lock the folder itself: no file to leave behind, and free when the process ends."""
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                self.path, "is being trained by another process", "wait, or give another --out"
            ) from None

    def _check_same(self, config: AdaptConfig, before: AdaptConfig) -> None:
        found = load_card(self.path)
        card = self.card
        ours, theirs = (
            comparable(effective(one, of.spec.taps, of.task), of.store_id, of.targets)
            for one, of in ((config, card), (before, found))
        )
        fields = list(differing_fields(ours, theirs))
        if not fields:
            fields = list(differing_fields(self.card.to_json(), found.to_json()))
            fields = [field for field in fields if not field.startswith("losa:")]
        if fields:
            raise MismatchError(
                self.path,
                "holds another run (asked / there): " + ", ".join(fields),
                "give another --out, or --overwrite",
            )

    def _clear(self) -> None:
        # The configuration first: without it the rest counts as nothing.
        for name in OURS:
            (self.path / name).unlink(missing_ok=True)
