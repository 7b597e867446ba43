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
FINAL: Final = ":1000"
"""Behind a task's name: what was chosen on 800 and 200 is trained once more, on all of them."""

_Lists = Mapping[str, tuple[str, int | None]]
_TEST: Final = ("test.txt", None)
_LISTS: Final[Mapping[str, _Lists]] = {
    "": {"train": ("train800.txt", 800), "val": ("val200.txt", 200), "test": _TEST},
    FINAL: {"train": ("train800val200.txt", 1000), "test": _TEST},
}

log = logging.getLogger(__name__)


def list_task(name: str, data_dir: Path, splits: tuple[str, ...] | None) -> Listing:
    """A task's lists, all or those asked for: of 800 and 200 images; or, behind ``:1000``, of both.

    Raises:
        UsageError: there is no such task, or no such split.
        InputError: a list is missing or damaged, or lists a sample twice.
    """
    name, final = name.removesuffix(FINAL), FINAL if name.endswith(FINAL) else ""
    task = _ALIASES.get(name, name)
    if task not in TASKS:
        raise UsageError("--dataset", f"{name!r} is no VTAB task", f"use one of {', '.join(TASKS)}")
    lists = _LISTS[final]
    for split in splits or ():
        if split not in lists:
            raise _no_split(f"{PREFIX}{task}", final, split)
    root = _root(task, name, data_dir)
    lines: list[Listed] = []
    for split in splits or lists:
        lines += _lines(root, split, *lists[split], TASKS[task])
    # A class may be absent from a task's 800: its number is its name.
    classes = tuple(map(str, range(TASKS[task])))
    return Listing(f"{PREFIX}{task}{final}", root, root, lines, classes)


def _no_split(name: str, final: str, split: str) -> UsageError:
    todo = f"use one of {', '.join(_LISTS[final])}"
    if not final and split == "trainval":
        # A split of another name than train is one that nothing trains on.
        todo = f"its 1000 are the train of --dataset {name}{FINAL}"
    return UsageError("--split", f"{name}{final} has no {split!r}", todo)


def _root(task: str, name: str, data_dir: Path) -> Path:
    """The folder of a task's lists."""
    names = dict.fromkeys((task, name))
    folders = [data_dir / above / below for above in ("vtab", "vtab-1k", "") for below in names]
    files = {file for lists in _LISTS.values() for file, _ in lists.values()}
    for folder in folders:
        if any(path_kind(folder / file) == "file" for file in files):
            return folder
    todo = f"unpack VTAB-1k from {SOURCE} into {data_dir / 'vtab'}, or give --data-dir"
    raise InputError(folders[0], "is missing, or holds no lists of VTAB-1k", todo)


def _lines(root: Path, split: str, name: str, expected: int | None, count: int) -> list[Listed]:
    """The lines of one list, whose labels are below ``count``."""
    file = root / name
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
    if expected not in (None, len(listed)):
        log.warning("%s has %d samples, not %d", file, len(listed), expected)
    return listed
