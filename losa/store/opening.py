"""Opening a store wherever its features lie: in a folder, or in one HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from losa.features import Regime
from losa.store.h5store import H5Store, open_h5
from losa.store.reader import Store, open_store
from losa.store.split import Verify

H5_SUFFIXES: Final = (".h5", ".hdf5")


def open_source(
    path: Path | str, *, verify: Verify = "first", regime: Regime = "auto"
) -> Store | H5Store:
    """Open a store's folder, or the HDF5 file of ``losa export``, told by its name.

    Raises:
        StoreError: what is there is missing, foreign, newer or damaged; the file is named.
        UsageError: the regime cannot read what is there.
    """
    path = Path(path)
    if path.suffix.lower() in H5_SUFFIXES and not path.is_dir():
        return open_h5(path, verify=verify, regime=regime)
    return open_store(path, verify=verify, regime=regime)
