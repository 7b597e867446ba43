"""VTAB-1k as every published run reads it: lists of 800, 200 and 1000 images of 19 tasks.

Source: Zhai et al., A Large-scale Study of Representation Learning with the Visual Task Adaptation
Benchmark, 2019, for the tasks; the lists are those of the NOAH and V-PETL repositories.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from losa.errors import InputError, UsageError
from losa.extract.annotations import Listed, path_kind, read_text, safe_path
from losa.extract.samples import Listing
from losa.features import is_whole

PREFIX: Final = "vtab/"
LAYOUT: Final = "vtab/TASK/{train800,val200,train800val200,test}.txt, lines 'path label'"
SOURCE: Final = "https://github.com/ZhangYuanhan-AI/NOAH"

TASKS: Final[Mapping[str, int]] = {
    "cifar": 100,
    "caltech101": 102,
    "dtd": 47,
    "oxford_flowers102": 102,
    "oxford_iiit_pet": 37,
    "svhn": 10,
    "sun397": 397,
    "patch_camelyon": 2,
    "eurosat": 10,
    "resisc45": 45,
    "diabetic_retinopathy": 5,
    "clevr_count": 8,
    "clevr_dist": 6,
    "dmlab": 6,
    "kitti": 4,
    "dsprites_loc": 16,
    "dsprites_ori": 16,
    "smallnorb_azi": 18,
    "smallnorb_ele": 9,
}
"""The tasks by the names of their folders, and how many classes each has."""

_ALIASES: Final[Mapping[str, str]] = {
    "cifar100": "cifar",
    "flowers102": "oxford_flowers102",
    "pets": "oxford_iiit_pet",
    "camelyon": "patch_camelyon",
    "retinopathy": "diabetic_retinopathy",
}
_LISTS: Final[Mapping[str, tuple[str, int | None]]] = {
    "train": ("train800.txt", 800),
    "val": ("val200.txt", 200),
    "test": ("test.txt", None),
    "trainval": ("train800val200.txt", 1000),
}
_USUAL: Final = ("train", "val", "test")

log = logging.getLogger(__name__)


def list_task(name: str, data_dir: Path, splits: tuple[str, ...] | None) -> Listing:
    """A task's lists: train, val and test, or those asked for; ``trainval`` is the 1000.

    Raises:
        UsageError: there is no such task, or no such split.
        InputError: a list is missing or damaged, or lists a sample twice.
    """
    task = _ALIASES.get(name, name)
    if task not in TASKS:
        raise UsageError("--dataset", f"{name!r} is no VTAB task", f"use one of {', '.join(TASKS)}")
    wanted = _USUAL if splits is None else splits
    for split in wanted:
        if split not in _LISTS:
            have = ", ".join(_LISTS)
            raise UsageError("--split", f"{PREFIX}{task} has no {split!r}", f"use one of {have}")
    if "trainval" in wanted and {"train", "val"} & set(wanted):
        raise UsageError("--split", "trainval is train and val together", "take one or the other")
    root = _root(task, name, data_dir)
    lines: list[Listed] = []
    for split in wanted:
        lines += _lines(root, split, TASKS[task])
    # A class may be absent from a task's 800: its number is its name.
    classes = tuple(map(str, range(TASKS[task])))
    return Listing(f"{PREFIX}{task}", root, root, lines, classes)


def _root(task: str, name: str, data_dir: Path) -> Path:
    """The folder of a task's lists."""
    names = dict.fromkeys((task, name))
    folders = [data_dir / above / below for above in ("vtab", "vtab-1k", "") for below in names]
    files = [file for file, _ in _LISTS.values()]
    for folder in folders:
        if any(path_kind(folder / file) == "file" for file in files):
            return folder
    todo = f"unpack VTAB-1k from {SOURCE} into {data_dir / 'vtab'}, or give --data-dir"
    raise InputError(folders[0], "is missing, or holds no lists of VTAB-1k", todo)


def _lines(root: Path, split: str, count: int) -> list[Listed]:
    """The lines of one list."""
    file = root / _LISTS[split][0]
    listed = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file.name} line {number}"
        path, _, label = line.strip().rpartition(" ")
        if not is_whole(label) or int(label) >= count:
            what = f"{where}: label {label[:20]!r} is none of 0..{count - 1}"
            raise InputError(file, what, "fetch the list again")
        listed.append(Listed(safe_path(path.strip(), file, where), str(int(label)), split, where))
    if not listed:
        raise InputError(file, "lists no samples", "fetch the list again")
    expected = _LISTS[split][1]
    if expected not in (None, len(listed)):
        log.warning("%s has %d samples, not %d", file, len(listed), expected)
    return listed
