"""A store's data set, found again to extract some of its rows once more."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from losa.config import ExtractConfig
from losa.errors import InputError, UsageError
from losa.extract import idx
from losa.extract.annotations import safe_path
from losa.extract.datasets import load_dataset
from losa.extract.huggingface import hub_options
from losa.extract.media import Media
from losa.extract.samples import Dataset
from losa.extract.tarindex import index_shard
from losa.store import Plan

PIECED = ("epic",)
"""Data sets whose samples are parts of files, by what their annotations say."""

_TODO = "name the folder that its samples, or its shards, lie below"


def find_again(plan: Plan, images: Path | None, paths: Sequence[str]) -> Dataset:
    """The data set of a plan, which knows its name but not where it lay.

    Args:
        plan: of the store.
        images: the folder that the samples lie below: files, shards, the saved folder of ``hf:``,
            or what ``--data-dir`` was for a named data set; ``None``: where the name leads from
            here.
        paths: of the samples that are wanted; of shards only those are looked into that hold them.

    Raises:
        UsageError: it is not found.
        LosaError: it is found, and damaged or out of reach.
    """
    kind, _, name = plan.dataset.partition(":")
    data_dir = ExtractConfig(model="", dataset="").data_dir
    text = plan.dataset
    if images is not None:
        if kind == "wds":
            return _shards_below(images, plan.dataset, paths)
        if kind == "hf":
            text = f"hf:{images}{hub_options(name)}"
        elif (name or text not in idx.SETS) and kind not in PIECED:
            return Dataset(plan.dataset, images, {}, ())
        data_dir = images
    try:
        splits, is_clips = tuple(plan.splits), "clip" in plan.preprocessing
        return load_dataset(text, data_dir, splits=splits, seed=plan.order_seed, is_clips=is_clips)
    except (UsageError, InputError) as error:
        # What is there and damaged says so itself, and is no matter of flags.
        if isinstance(error, InputError) and Path(error.subject).exists():
            raise
        what = f"is needed: {plan.dataset!r} is not found ({error.what})"
        raise UsageError("--images", what, _TODO) from None


def _shards_below(images: Path, name: str, paths: Sequence[str]) -> Dataset:
    """The samples of shards that lie below a folder as they did when the store was made.

    A plan's name keeps no folders; what samples are called begins with their shard's place below
    the folder that all shards shared. That may be ``images``, or one folder below it.
    """
    shards = tuple(dict.fromkeys(shard for path in paths for shard in _shards_in(path, images)))
    roots = _roots(images, shards)
    if len(roots) != 1:
        how = f"holds the shards of {name!r} in {len(roots)} folders" if roots else "holds none"
        # The longest is no folder that is called like a tar file.
        some = max(shards, key=len, default=name)
        raise UsageError("--images", f"{images} {how} (such as {some})", _TODO)
    pieces: dict[str, Media] = {}
    for shard in shards:
        place = roots[0] / shard
        if place.is_file():
            for found in index_shard(place):
                pieces[f"{shard}/{found.image}"] = Media(place, found.offset, found.size)
    return Dataset(name, roots[0], {}, (), pieces)


def _shards_in(path: str, source: Path) -> Iterator[str]:
    """What of a sample's path may be its shard: a folder may be called like a tar file."""
    safe = PurePosixPath(safe_path(path, source, "--store"))
    for above in reversed(safe.parents):
        if above.suffix == ".tar":
            yield above.as_posix()


def _roots(images: Path, shards: Sequence[str]) -> list[Path]:
    """The folder itself if shards lie there, or else every folder below it where they do."""

    def holds(folder: Path) -> bool:
        return any((folder / shard).is_file() for shard in shards)

    if holds(images):
        return [images]
    below = (Path(above, name) for above, names, _ in os.walk(images) for name in names)
    return [folder for folder in below if holds(folder)]
