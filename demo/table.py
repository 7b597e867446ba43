"""The demo's last word: one row an adaptor, as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HEADINGS = (
    "adaptor",
    "val top-1 %",
    "test top-1 %",
    "seconds",
    "trainable parameters",
    "store MB",
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one adaptor reached and cost; accuracies in 0..1, None where there is no such split."""

    adaptor: str
    val: float | None
    test: float | None
    seconds: float
    trainable: int
    store_bytes: int


def table(rows: Sequence[Row]) -> str:
    """The rows under their headings, columns aligned.

    Example:
        >>> print(table([Row("losa", 0.95, None, 21.4, 41010, 200_300_000)]))
        adaptor  val top-1 %  test top-1 %  seconds  trainable parameters  store MB
        -------  -----------  ------------  -------  --------------------  --------
        losa            95.0             -     21.4                41,010     200.3
    """
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    cells.insert(1, tuple("-" * width for width in widths))
    lines = []
    for line in cells:
        first, *others = line
        padded = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    """One row as text."""
    return (
        row.adaptor,
        *("-" if share is None else f"{100 * share:.1f}" for share in (row.val, row.test)),
        f"{row.seconds:.1f}",
        f"{row.trainable:,}",
        f"{row.store_bytes / 1e6:.1f}",
    )
