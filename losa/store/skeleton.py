"""The empty store: every folder, every ``zarr.json``, and all that is known before the first row.

Source: docs/store-format.md, section "Names".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from losa.features import Sample
from losa.store import files, layout, zarrjson
from losa.store.order import row_order
from losa.store.plan import FORMAT_MAJOR, FORMAT_MINOR, Plan
from losa.version import __version__

STATISTICS: Final = ("mean", "std", "absmax")


def metadata_documents(plan: Plan) -> dict[str, dict[str, Any]]:
    """Every zarr document below the root, by its node's path."""
    documents: dict[str, dict[str, Any]] = {"calib": zarrjson.group_document()}
    channels = plan.spec.channels
    for tap in plan.spec.taps:
        name = f"calib/{layout.tap_name(tap)}"
        documents[name] = zarrjson.group_document()
        for statistic in STATISTICS:
            documents[f"{name}/{statistic}"] = zarrjson.array_document(
                (channels,), "float32", (channels,), ("d",)
            )
    for split, item in plan.splits.items():
        documents |= _split_documents(plan, split, item.rows)
    return documents


def root_document(plan: Plan) -> dict[str, Any]:
    """The root group's document before sealing."""
    attributes = {
        "losa": {
            "format": {"major": FORMAT_MAJOR, "minor": FORMAT_MINOR},
            "min_reader": FORMAT_MAJOR,
            "plan": plan.digest,
            "writer": f"losa {__version__}",
        }
    }
    return zarrjson.group_document(attributes)


def write_skeleton(
    root: Path,
    plan: Plan,
    samples: Mapping[str, Sequence[Sample]],
    statistics: Mapping[str, np.ndarray],
) -> None:
    """Write the empty store into the new folder ``root``; nothing is synced here.

    Raises:
        OSError: the place cannot be written.
    """
    root.mkdir()
    for folder in (layout.TMP_FOLDER, ".losa/samples"):
        (root / folder).mkdir(parents=True)
    for split in plan.splits:
        for kind in ("commits", "claims"):
            (root / ".losa" / kind / split).mkdir(parents=True)
    for name, document in metadata_documents(plan).items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "zarr.json").write_bytes(zarrjson.document_bytes(document))
    for number, tap in enumerate(plan.spec.taps):
        for statistic in STATISTICS:
            data = statistics[statistic][number].astype("<f4").tobytes()
            (root / "calib" / layout.tap_name(tap) / statistic / "c.0").write_bytes(data)
    for split, listed in samples.items():
        _write_samples(root, plan, split, listed)
    (root / layout.PLAN_OBJECT).write_bytes(files.canonical_json(plan.to_json()))
    (root / layout.ROOT_OBJECT).write_bytes(zarrjson.document_bytes(root_document(plan)))


def _split_documents(plan: Plan, split: str, rows: int) -> dict[str, dict[str, Any]]:
    shard_rows = plan.shard_rows
    _, tokens, channels = plan.spec.shape
    array, group = zarrjson.array_document, zarrjson.group_document
    documents = {
        name: group() for name in (split, f"{split}/tokens", f"{split}/check", f"{split}/sample")
    }
    for tap in plan.spec.taps:
        documents[layout.tokens_path(split, tap)] = zarrjson.tokens_document(
            (rows, tokens, channels), plan.spec.dtype, shard_rows
        )
        documents[layout.check_path(split, tap)] = array((rows,), "uint32", (shard_rows,), ("n",))
    documents[layout.status_path(split)] = array((rows,), "uint8", (shard_rows,), ("n",))
    for name, dtype in (("source_index", "int64"), ("label", "int32"), ("view", "uint8")):
        documents[f"{split}/sample/{name}"] = array((rows,), dtype, (rows,), ("n",))
    return documents


def _write_samples(root: Path, plan: Plan, split: str, listed: Sequence[Sample]) -> None:
    order = row_order(len(listed), plan.order_seed, split)
    labels = np.array([sample.label for sample in listed], dtype="<i4")[order]
    columns = {
        "source_index": order.astype("<i8"),
        "label": labels,
        "view": np.zeros(len(listed), dtype=np.uint8),
    }
    for name, column in columns.items():
        (root / split / "sample" / name / "c.0").write_bytes(column.tobytes())
    lines = [files.canonical_json([item.key, item.path, item.label]) for item in listed]
    (root / layout.samples_object(split)).write_bytes(b"".join(lines))
