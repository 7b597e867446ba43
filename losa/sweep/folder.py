"""The folder of a sweep: what is tried, a folder a trial, who trains it, and the table.

``trials/<digest>/`` is a run's folder with ``result.json`` beside, which is created once: whoever
finds it need not train the trial. ``claims/`` says who is at it, as in a store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from losa.adapt.rundir import INDIFFERENT
from losa.config import AdaptConfig, load_yaml
from losa.errors import MismatchError, StoreError, UsageError
from losa.store import files
from losa.store.claims import Claims, ShardTask
from losa.store.layout import TMP_FOLDER
from losa.store.plan import differing_fields
from losa.sweep.results import TrialResult, read_result
from losa.sweep.strategy import SECTIONS
from losa.sweep.trials import SweepTrial

SWEEP_NAME: Final = "sweep.yaml"
RESULT_NAME: Final = "result.json"
TABLE_NAME: Final = "results.csv"
MAX_BYTES: Final = 1 << 16
IDENTITY: Final = ("store_id", "targets_digest")
"""What the file says beside what somebody would write: on what the sweep was begun."""


class SweepFolder:
    """One sweep on the disk, which any number of processes share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trials = root / "trials"
        self._claims_root = root / "claims"
        self._scratch = self._claims_root / TMP_FOLDER
        # Both are created once, so what was read stays true.
        self._known: dict[str, TrialResult] = {}
        self._marks: dict[Path, dict[str, Any]] = {}

    @property
    def file(self) -> Path:
        """What is tried, resolved; it appears last of the files that begin a sweep."""
        return self.root / SWEEP_NAME

    @property
    def table(self) -> Path:
        """A line a trial."""
        return self.root / TABLE_NAME

    def begin_or_join(self, wanted: Mapping[str, Any]) -> None:
        """Begin the sweep that is wanted, or find it here.

        Raises:
            MismatchError: another sweep lies here; the fields that differ are named.
            UsageError: its file would be too large to be read again.
            ResourceError: the folder cannot be written.
        """
        # Through JSON, or what stands twice in memory would become an anchor, which none reads.
        plain = json.loads(json.dumps(dict(wanted)))
        data = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None).encode()
        if len(data) > MAX_BYTES:
            what = f"would have {len(data):,} bytes, at most {MAX_BYTES:,} are read"
            raise UsageError(self.file, what, "use grid or random instead of a long list")
        with files.named(self.root):
            for folder in (self.trials, self._scratch, self._claims_folder):
                files.make_folders(folder, durable=True)
        if files.create_once(self.file, data, scratch=self._scratch, durable=True):
            return
        fields = list(differing_fields(_deciding(wanted), _deciding(load_yaml(self.file))))
        if fields:
            raise MismatchError(
                self.root,
                "holds another sweep (asked / there): " + ", ".join(fields),
                "give another --out",
            )

    def claims(self) -> Claims:
        """The claims of this process; close them."""
        return Claims(self._claims_root)

    def result(self, digest: str) -> TrialResult | None:
        """The result of a trial, once it is there.

        Raises:
            StoreError: it is damaged.
        """
        path = self.trials / digest / RESULT_NAME
        if digest not in self._known and path.exists():
            self._known[digest] = read_result(path)
        return self._known.get(digest)

    def finish(self, result: TrialResult) -> bool:
        """Publish a result unless there is one; says whether it was us.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        return self._create(self.trials / result.digest / RESULT_NAME, result.to_bytes())

    def mark(self, digest: str, rung: int) -> dict[str, Any] | None:
        """How a trial stood at a rung of so many epochs, once it has got there.

        Raises:
            StoreError: the file is damaged.
        """
        path = self._mark_path(digest, rung)
        if path not in self._marks and path.exists():
            self._marks[path] = files.read_json(path)
        return self._marks.get(path)

    def set_mark(self, digest: str, rung: int, value: Mapping[str, Any]) -> None:
        """Say how a trial stood at a rung, unless that was said.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        self._create(self._mark_path(digest, rung), files.canonical_json(dict(value)))

    def suggestion(self, number: int) -> dict[str, Any] | None:
        """The n-th setting that was asked for, once it was.

        Raises:
            StoreError: the file is damaged.
        """
        path = self._suggestion_path(number)
        return files.read_json(path) if path.exists() else None

    def set_suggestion(self, number: int, value: Mapping[str, Any]) -> None:
        """Say what the n-th setting is, unless that was said.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        self._create(self._suggestion_path(number), files.canonical_json(dict(value)))

    @property
    def _claims_folder(self) -> Path:
        return self._claims_root / ".losa" / "claims" / _CLAIMED

    def _mark_path(self, digest: str, rung: int) -> Path:
        return self.trials / digest / f"rung-{rung}.json"

    def _suggestion_path(self, number: int) -> Path:
        return self.root / "asked" / f"{number:06d}.json"

    def _create(self, path: Path, data: bytes) -> bool:
        with files.named(path.parent):
            files.make_folders(path.parent, durable=True)
        return files.create_once(path, data, scratch=self._scratch, durable=True)


_CLAIMED: Final = "trials"


def claim_of(trial: SweepTrial) -> ShardTask:
    """What is claimed of a trial: its number, as if it were a shard."""
    return ShardTask(_CLAIMED, trial.number, trial.number, trial.number + 1)


def recorded(
    sections: Mapping[str, Any], base: AdaptConfig, store_id: str, targets: str = ""
) -> dict[str, Any]:
    """What ``sweep.yaml`` says: the sections as given, but for a base that names every field."""
    values = base.model_dump(mode="json")
    without = ("store", "out", "live", "overwrite")
    full = {name: value for name, value in values.items() if name not in without}
    own = {name: sections[name] for name in SECTIONS if sections.get(name) is not None}
    identity = {"store_id": store_id, **({"targets_digest": targets} if targets else {})}
    return {"store": str(base.store), **identity, **own, "base": full}


def read_recorded(root: Path) -> dict[str, Any]:
    """What a sweep that was begun tries.

    Raises:
        StoreError: there is none.
        InputError: its file is damaged.
    """
    path = root / SWEEP_NAME
    if not path.is_file():
        raise StoreError(path, "does not exist", "give --config, or the --out of a sweep")
    return load_yaml(path)


def results_of(folder: SweepFolder, trials: Iterable[SweepTrial]) -> list[TrialResult]:
    """The results that are there, in the order of the trials."""
    found = (folder.result(trial.digest) for trial in trials)
    return [result for result in found if result is not None]


def _deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a sweep's trials: neither where things lie nor how fast they go."""
    base = {name: value for name, value in values["base"].items() if name not in INDIFFERENT}
    # What was built of YAML and what is read from it: both as JSON would have them.
    own = {name: value for name, value in values.items() if name not in ("store", "base")}
    return {**own, "base": base}
