"""``--overwrite``: the old store is moved aside, and deleted once the new one is sealed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from losa.store import files, layout
from losa.store.reader import check_format

log = logging.getLogger(__name__)


@contextmanager
def set_aside(path: Path, plan_digest: str, *, active: bool) -> Iterator[None]:
    """While open, ``path`` is free for a new store, or holds the beginning of this very one.

    The old store lies in ``.<name>.old`` meanwhile. If nothing new came into being it is put back.

    Raises:
        StoreError: ``path`` holds something that is no losa store.
    """
    aside = path.with_name(f".{path.name}.old")
    if active and path.exists():
        _make_room(path, aside, plan_digest)
    try:
        yield
    finally:
        if active and aside.exists() and not path.exists():
            aside.rename(path)
    if active and aside.exists():
        shutil.rmtree(aside)


def _make_room(path: Path, aside: Path, plan_digest: str) -> None:
    check_format(path)
    is_sealed = (path / layout.SEALED_OBJECT).exists()
    if aside.exists() and not is_sealed:
        # An interrupted --overwrite began this one: go on with it if it is the same, else restart.
        attributes = files.read_json(path / layout.ROOT_OBJECT)["attributes"]
        if attributes["losa"].get("plan") != plan_digest:
            shutil.rmtree(path)
        return
    if aside.exists():
        shutil.rmtree(aside)
    path.rename(aside)
    log.info("%s is kept as %s until its replacement is sealed", path, aside)
