"""The feature store: a directory that is a valid zarr v3 group and is read as raw records.

Knows numpy and the file system; knows no torch and no models. Format: ``docs/store-format.md``.
"""

from losa.store.plan import Plan
from losa.store.reader import Calibration, Store, open_store
from losa.store.split import SplitReader
from losa.store.writer import StoreWriter, create_store

__all__ = [
    "Calibration",
    "Plan",
    "SplitReader",
    "Store",
    "StoreWriter",
    "create_store",
    "open_store",
]
