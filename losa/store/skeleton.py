"""The empty store: every folder, every ``zarr.json``, and all that is known before the first row.

Source: docs/store-format.md, section "Names".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from losa.features import Sample
from losa.store import files, layout, system, zarrjson
from losa.store.listing import samples_bytes
from losa.store.order import row_places
from losa.store.plan import FORMAT_MAJOR, FORMAT_MINOR, Plan

_STATISTICS: Final = ("mean", "std", "absmax")
_FOLDERS: Final = (layout.TMP_FOLDER, ".losa/samples", f"{layout.SPARE_FOLDER}/samples")


def statistics_of(plan: Plan) -> tuple[str, ...]:
    """Names of the calibration's arrays: int8 stores also have the scale of each channel."""
    return (*_STATISTICS, "channel") if plan.spec.dtype == "int8" else _STATISTICS


def spared_objects(plan: Plan) -> list[str]:
    """Files that nothing else could tell, of which the store therefore keeps a second copy."""
    statistics = statistics_of(plan)
    names = [layout.statistic_object(tap, name) for tap in plan.spec.taps for name in statistics]
    return [layout.PLAN_OBJECT, *map(layout.samples_object, plan.splits), *names]


def metadata_documents(plan: Plan) -> dict[str, dict[str, Any]]:
    """Every zarr document below the root, by its node's path."""
    documents: dict[str, dict[str, Any]] = {"calib": zarrjson.group_document()}
    channels = plan.spec.channels
    for tap in plan.spec.taps:
        name = f"calib/{layout.tap_name(tap)}"
        documents[name] = zarrjson.group_document()
        for statistic in statistics_of(plan):
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
            "writer": plan.writer,
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
    _make_folders(root, [""])
    for name, data in skeleton_files(plan, samples, statistics):
        _make_folders(root, [name.rpartition("/")[0]])
        files.write_new(root / name, data)
    claims = [f".losa/{kind}/{split}" for split in plan.splits for kind in ("commits", "claims")]
    _make_folders(root, [*_FOLDERS, *claims])


def skeleton_files(
    plan: Plan, samples: Mapping[str, Sequence[Sample]], statistics: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, bytes]]:
    """Every file of the empty store: its name below the root, and its content."""
    originals = {
        layout.statistic_object(tap, name): statistics[name][number].astype("<f4").tobytes()
        for number, tap in enumerate(plan.spec.taps)
        for name in statistics_of(plan)
    }
    originals[layout.PLAN_OBJECT] = files.canonical_json(plan.to_json())
    for split, listed in samples.items():
        originals[layout.samples_object(split)] = samples_bytes(listed)
        yield from sample_columns(plan, split, listed)
    for name, data in originals.items():
        yield name, data
        yield layout.spare_object(name), data
    for name, document in metadata_documents(plan).items():
        yield f"{name}/zarr.json", zarrjson.document_bytes(document)
    yield layout.ROOT_OBJECT, zarrjson.document_bytes(root_document(plan))


def sample_columns(plan: Plan, split: str, listed: Sequence[Sample]) -> Iterator[tuple[str, bytes]]:
    """The columns that follow from a split's listing: file name and content."""
    places = row_places(len(listed), plan.views_of(split), plan.order_seed, split)
    labels = np.array([sample.label for sample in listed], dtype="<i4")[places.source_index]
    yield f"{split}/sample/source_index/c.0", places.source_index.astype("<i8").tobytes()
    yield f"{split}/sample/label/c.0", labels.tobytes()
    yield f"{split}/sample/view/c.0", places.view.astype("|u1").tobytes()


def _make_folders(root: Path, names: Sequence[str]) -> None:
    """Make folders below the root, and those they lie in."""
    for name in names:
        path = root
        for part in ["", *name.split("/")]:
            path = path / part
            if not path.exists():
                system.current.mkdir(path)


def _split_documents(plan: Plan, split: str, rows: int) -> dict[str, dict[str, Any]]:
    shard_rows = plan.shard_rows
    _, tokens, channels = plan.spec.shape
    array, group = zarrjson.array_document, zarrjson.group_document
    is_scaled = plan.spec.dtype == "int8"
    kinds = ("tokens", "scale", "check", "sample") if is_scaled else ("tokens", "check", "sample")
    documents = {name: group() for name in (split, *(f"{split}/{kind}" for kind in kinds))}
    for tap in plan.spec.taps:
        documents[layout.tokens_path(split, tap)] = zarrjson.tokens_document(
            (rows, tokens, channels), plan.spec.dtype, shard_rows
        )
        if is_scaled:
            scale = zarrjson.scale_document((rows, tokens), shard_rows)
            documents[layout.scale_path(split, tap)] = scale
        documents[layout.check_path(split, tap)] = array((rows,), "uint32", (shard_rows,), ("n",))
    documents[layout.status_path(split)] = array((rows,), "uint8", (shard_rows,), ("n",))
    for name, dtype in (("source_index", "int64"), ("label", "int32"), ("view", "uint8")):
        documents[f"{split}/sample/{name}"] = array((rows,), dtype, (rows,), ("n",))
    return documents
