"""Saved data sets of the library ``datasets`` for tests; imported only where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from tests.extract.shards import png

NAMES = ("owl", "bat", "ant")


def rows(count: int, *, first: int = 0, label: Any = None, **columns: Any) -> datasets.Dataset:
    """Images of ascending shade, with labels 0, 1, 2, 0, ... or of another type."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=list(NAMES))}
    )
    cells = [{"bytes": png(10 * (first + n) % 256), "path": None} for n in range(count)]
    labels = columns.get("labels", [n % 3 for n in range(count)])
    return datasets.Dataset.from_dict({"image": cells, "label": labels}, features=features)


def saved(table: datasets.Dataset | datasets.DatasetDict, folder: Path, **options: Any) -> Path:
    """A folder of ``save_to_disk``."""
    table.save_to_disk(str(folder), **options)
    return folder
