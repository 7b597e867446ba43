"""Opening a sealed store; what is no sealed store of this format is refused.

zarr-python is not needed: the shard files are raw records (docs/store-format.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from losa.errors import StoreError, UsageError
from losa.features import Regime
from losa.store import files, layout
from losa.store.foreign import ForeignArrays, ForeignRecords, has_foreign_records
from losa.store.plan import FORMAT_MAJOR, Plan
from losa.store.records import Records
from losa.store.remote import RemoteFiles, ZarrStore, is_url
from losa.store.seal import seal_digest
from losa.store.sealed import REPAIR, Read, SealedFiles, as_sealed
from losa.store.shardfile import Folders
from losa.store.skeleton import statistics_of
from losa.store.split import SplitStore, Verify


@dataclass(frozen=True, slots=True)
class Calibration:
    """Statistics of each tap's channels over a seeded sample of the train split."""

    mean: Float32[np.ndarray, "k d"]
    std: Float32[np.ndarray, "k d"]
    absmax: Float32[np.ndarray, "k d"]
    exponent: tuple[int, ...]
    channel: Float32[np.ndarray, "k d"] | None = None
    """What int8 values are multiplied by, channel by channel; other dtypes have none."""

    @property
    def quantiser(self) -> Float32[np.ndarray, "k 2 d"] | None:
        """Mean and scale of each channel, which turn int8 back into features; else none."""
        return None if self.channel is None else np.stack([self.mean, self.channel], axis=1)


def open_store(
    path: Path | str | ZarrStore, *, verify: Verify = "first", regime: Regime = "auto"
) -> Store:
    """Open a sealed store of this format.

    ``verify`` says when a record's checksum is compared: on its ``first`` touch, ``always``, or
    ``never``. ``regime`` says how records are read; see docs/api.md, section "How a store is
    read". A URL, or a Store of zarr-python, is read through zarr-python.

    Raises:
        StoreError: the store is missing, foreign, newer, unsealed or damaged; the file is named.
        UsageError: the regime cannot read what is there.
    """
    if not isinstance(path, Path) and (is_url(path) or not isinstance(path, str)):
        return _open_remote(RemoteFiles(path), regime)
    path = Path(path)
    check_format(path)
    sealed_path = Folders(path).check(layout.SEALED_OBJECT)
    if not sealed_path.exists():
        raise StoreError(path, f"is not sealed ({_progress(path)})", _RESUME)
    sealed_bytes = files.read_file(sealed_path)
    plan, sealed = _plan_of(path, sealed_bytes, lambda name: files.read_file(path / name))
    found = SealedFiles(path, plan, sealed)
    store_id = files.sha256(sealed_bytes)
    if regime != "foreign" and not has_foreign_records(found.read_file, found.plan):
        return Store(found, store_id, verify, regime)
    from zarr.storage import LocalStore

    return _open_foreign(found, store_id, regime, LocalStore(path, read_only=True))


def _open_remote(remote: RemoteFiles, regime: Regime) -> Store:
    root, sealed_bytes = remote.find(layout.ROOT_OBJECT), remote.find(layout.SEALED_OBJECT)
    if root is None:
        raise StoreError(remote.path, "is not a losa store (no zarr.json)", "give a store's place")
    root_path = remote.path / layout.ROOT_OBJECT
    check_root(root_path, files.parse_json(root_path, root))
    if sealed_bytes is None:
        raise StoreError(remote.path, "is not sealed", _RESUME)
    plan, sealed = _plan_of(remote.path, sealed_bytes, remote.read)
    found = SealedFiles(remote.path, plan, sealed, remote.read)
    return _open_foreign(found, files.sha256(sealed_bytes), regime, remote.objects)


def _open_foreign(found: SealedFiles, store_id: str, regime: Regime, objects: Any) -> Store:
    if regime not in ("auto", "resident", "foreign"):
        what = f"{regime} reads raw records in a folder, which those of {found.path} are not"
        raise UsageError("--read", what, "give auto")
    arrays = ForeignArrays(found.path, found.plan, found.read_file, objects)
    through = SealedFiles(found.path, found.plan, found.sealed, arrays.read)
    return Store(through, store_id, "always", regime, arrays)


def _plan_of(path: Path, sealed_bytes: bytes, read: Read) -> tuple[Plan, dict[str, Any]]:
    """The plan that a seal vouches for, and what else the seal says."""
    sealed_path, plan_path = path / layout.SEALED_OBJECT, path / layout.PLAN_OBJECT
    sealed = files.parse_json(sealed_path, sealed_bytes)
    digests = sealed.get("files")
    is_ours = files.canonical_json(sealed) == sealed_bytes
    if not (is_ours and isinstance(digests, dict) and sealed.get("digest") == seal_digest(sealed)):
        raise StoreError(sealed_path, "is not as losa writes it", REPAIR)
    plan_bytes = as_sealed(plan_path, layout.PLAN_OBJECT, read(layout.PLAN_OBJECT), digests)
    plan = Plan.from_json(files.parse_json(plan_path, plan_bytes), plan_path)
    return plan, sealed


def check_format(path: Path) -> None:
    """Refuse what is not a losa store of a format this version reads.

    Raises:
        StoreError: nothing is there, it is not ours, or it is newer.
    """
    if not path.exists():
        raise StoreError(path, "does not exist", "extract it first, or give another --store")
    if path.is_file():
        todo = "import an HDF5 file of losa export, or give it to adapt, evaluate or predict"
        raise StoreError(path, "is a file, and a store is a folder", todo)
    root = path / layout.ROOT_OBJECT
    if not path.is_dir() or not root.exists():
        raise StoreError(path, "is not a losa store (no zarr.json)", "give a store's folder")
    check_root(root, files.read_json(root))


def check_root(root: Path, document: Mapping[str, Any]) -> None:
    """Refuse the root group of what is not ours, or newer.

    Raises:
        StoreError: so it is.
    """
    attributes = document.get("attributes")
    losa = attributes.get("losa") if isinstance(attributes, dict) else None
    form = losa.get("format") if isinstance(losa, dict) else None
    major = form.get("major") if isinstance(form, dict) else None
    if not isinstance(losa, dict) or not isinstance(major, int):
        raise StoreError(root, "has no attributes.losa.format", "this zarr group is not losa's")
    if major != FORMAT_MAJOR:
        raise StoreError(
            root,
            f"is losa store format {major} (written by {losa.get('writer')}); "
            f"this losa reads format {FORMAT_MAJOR}",
            "upgrade with pip install -U losa",
        )


def count_committed(path: Path, split: str) -> int:
    """Shards of a split that are committed; a folder that got lost while empty holds none.

    Raises:
        StoreError: a folder on the way is a symbolic link.
    """
    name = layout.commit_object(split, 0)
    folder = Folders(path).check(name).parent
    try:
        return sum(1 for _ in folder.iterdir())
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise files.resource_error(folder, error) from error


class Store(SplitStore):
    """A sealed store; see :func:`open_store`. Splits are opened on first use.

    Args:
        found: its files.
        store_id: the digest of its seal.
        verify: when checksums are compared.
        regime: how records are read.
        arrays: what records are read from instead of shards.
    """

    def __init__(
        self,
        found: SealedFiles,
        store_id: str,
        verify: Verify,
        regime: Regime = "auto",
        arrays: ForeignArrays | None = None,
    ) -> None:
        super().__init__(found, verify, regime)
        self.sealed = found.sealed
        self.store_id = store_id
        self.files = found
        self._arrays = arrays

    def calibration(self, taps: tuple[int, ...]) -> Calibration:
        """Statistics of the given taps, in true units, and the exponents of their records."""
        exponents = tuple(self.plan.exponents[self.spec.taps.index(tap)] for tap in taps)
        arrays = {
            statistic: np.stack([self.files.statistic(tap, statistic) for tap in taps])
            for statistic in statistics_of(self.plan)
        }
        return Calibration(**arrays, exponent=exponents)

    def _records(self, split: str) -> Records:
        if self._arrays is not None:
            return ForeignRecords(self._arrays, split)
        return super()._records(split)


_RESUME = "run the same extract command again to finish it"


def _progress(path: Path) -> str:
    plan_path = path / layout.PLAN_OBJECT
    plan = Plan.from_json(files.read_json(plan_path), plan_path)
    done = sum(count_committed(path, split) for split in plan.splits)
    total = sum(layout.shard_count(item.rows, plan.shard_rows) for item in plan.splits.values())
    return f"{done} of {total} shards are committed"
