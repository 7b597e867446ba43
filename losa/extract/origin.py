"""A store's data set, found again to extract some of its rows once more."""

from __future__ import annotations

from pathlib import Path

from losa.config import ExtractConfig
from losa.errors import LosaError, UsageError
from losa.extract import idx
from losa.extract.datasets import load_dataset
from losa.extract.fetching import is_url
from losa.extract.samples import Dataset
from losa.extract.webdataset import TOGETHER
from losa.store import Plan


def find_again(plan: Plan, images: Path | None) -> Dataset:
    """The data set of a plan, which knows its name but not where it lay.

    Args:
        plan: of the store.
        images: the folder that the samples lie below: files, shards, the saved folder of ``hf:``,
            or what ``--data-dir`` was for a named data set; ``None``: where the name leads from
            here.

    Raises:
        UsageError: it is not found.
    """
    kind, _, name = plan.dataset.partition(":")
    data_dir = ExtractConfig(model="", dataset="").data_dir
    text = plan.dataset
    if images is not None:
        if kind == "wds":
            text = f"wds:{TOGETHER.join(_placed(part, images) for part in name.split(TOGETHER))}"
        elif kind == "hf":
            text = f"hf:{images}"
        elif name or text not in idx.SETS:
            return Dataset(plan.dataset, images, {}, ())
        data_dir = images
    try:
        return load_dataset(text, data_dir, splits=tuple(plan.splits), seed=plan.order_seed)
    except LosaError as error:
        what = f"is needed: {plan.dataset!r} is not found ({error.what})"
        todo = "name the folder that its samples, or its shards, lie below"
        raise UsageError("--images", what, todo) from None


def _placed(part: str, images: Path) -> str:
    """A place of shards, by the folder that it lies in or that it is."""
    if is_url(part):
        return part
    return str(images) if images.name == part else str(images / part)
