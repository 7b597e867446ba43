"""Simulated textile pictures in three classes: 800 train, 200 val and 1,000 test of 2,000."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from demo.assets import TEXTILE, fetch
from demo.tree import staged, stratified
from losa.extract.images import EXTENSIONS

COUNTS = MappingProxyType({"train": 800, "val": 200, "test": 1000})


def textile(cache: Path) -> Path:
    """The folder tree of the textile pictures (classes global, local, nominal), on first use."""
    folder = cache / "textile"
    if not folder.is_dir():
        split_tree(fetch(TEXTILE, cache) / TEXTILE.members, folder, COUNTS)
    return folder


def split_tree(source: Path, folder: Path, counts: Mapping[str, int], seed: int = 0) -> None:
    """Turn ``source/<class>/<file>`` into ``folder/<split>/<class>/<file>``, seeded, stratified."""
    files = sorted(path for path in source.glob("*/*") if path.suffix.lower() in EXTENSIONS)
    labels = np.array([path.parent.name for path in files])
    with staged(folder) as staging:
        for split, rows in stratified(labels, counts, seed).items():
            for row in rows:
                target = staging / split / files[row].parent.name / files[row].name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(files[row], target)


def _link_or_copy(source: Path, target: Path) -> None:
    """Give ``source`` a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
