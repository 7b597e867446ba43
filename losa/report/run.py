"""``losa report``: what lies in a folder, as a page and a table beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from losa.errors import UsageError
from losa.report.page import Story, page_of, story_of
from losa.report.tables import trials_csv
from losa.report.trials import read_folder
from losa.store.files import named, write_atomic

PAGE_NAME: Final = "report.html"
TABLE_SUFFIX: Final = ".csv"


def report(path: Path, out: Path | None = None) -> dict[str, Any]:
    """Write the page of a run or a sweep, and beside it the table; says where, and who won.

    Raises:
        UsageError: ``out`` is a folder, or has the name of the table.
        StoreError: there is nothing to report on, or a file of it is damaged.
        ResourceError: the page cannot be written.
    """
    page = path / PAGE_NAME if out is None else out
    table = page.with_suffix(TABLE_SUFFIX)
    if page.is_dir() or page == table:
        raise UsageError("--out", f"{page} is no name of a page", "give FILE.html")
    story = story_of(read_folder(path))
    text, rows = page_of(story), trials_csv(story.settings)
    with named(page):
        write_atomic(page, text.encode())
        write_atomic(table, rows)
    return {"page": str(page), "csv": str(table), **_told(story)}


def _told(story: Story) -> dict[str, Any]:
    """What a caller may want to know of it without opening the page."""
    best, key = story.settings[0], story.criterion.key
    scores = {split: best.score(split, key) for split in ("val", "test")}
    winner = None
    if story.winner is not None:
        winner = {
            "setting": dict(best.values),
            **{f"{split}_{key}": one.value for split, one in scores.items() if one is not None},
            "trial": story.winner.name,
        }
    return {
        "kind": story.found.kind,
        "trials": len(story.found.trials),
        "settings": len(story.settings),
        "left_behind": len(story.left_behind),
        "dropped": len(story.dropped),
        "unfinished": story.found.unfinished,
        "winner": winner,
        "command": story.command,
    }
