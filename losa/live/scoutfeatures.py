"""What a scout keeps of every block: prefix tokens, the mean patch, and means of coarse cells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from losa.extract.backbones import Backbone
from losa.extract.datasets import Dataset
from losa.extract.decode import DecodePool
from losa.extract.extraction import ExtractEvent
from losa.extract.tokens import parse_tokens
from losa.features import ITEM_BYTES, Sample, TokenGrid

SPACE_CELLS = 4
TIME_CELLS = 2
"""Cells along height and width, and along time, at most."""

_LARGEST = torch.finfo(torch.float16).max

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """How the tokens lie that are kept of a plane: prefix, mean patches, then cells.

    There is one mean patch, or one of each time step where each has its own prefix tokens.
    """

    prefix: int
    means: int
    cells: int

    @property
    def first_cell(self) -> int:
        """The place of the first cell."""
        return self.prefix + self.means

    @property
    def tokens(self) -> int:
        """Tokens kept of a plane."""
        return self.first_cell + self.cells


@dataclass(frozen=True)
class Gathered:
    """Summaries of all taps in the order of the samples; rows that failed are zero and not ok."""

    values: Float[Tensor, "k n l d"]
    ok: Bool[Tensor, "n"]
    summary: Summary


def summariser(grid: TokenGrid) -> tuple[Summary, Callable[[Tensor], Tensor]]:
    """What is kept of a plane on this grid, and the function that keeps it.

    Example:
        >>> summary, keep = summariser(TokenGrid(height=16, width=16, prefix=1))
        >>> summary.tokens, tuple(keep(torch.zeros(2, 257, 8)).shape)
        (18, (2, 18, 8))
    """
    whole, mean = parse_tokens("summary", grid)
    after, cells = parse_tokens(cell_policy(grid), grid)

    def keep(plane: Float[Tensor, "b l d"]) -> Float[Tensor, "b ... d"]:
        return torch.cat([mean(plane), cells(plane)[:, after.prefix :]], dim=1)

    return Summary(whole.prefix, whole.num_patches, after.num_patches), keep


def cell_policy(grid: TokenGrid) -> str:
    """The token policy whose windows are the cells.

    Example:
        >>> cell_policy(TokenGrid(height=16, width=14)), cell_policy(TokenGrid(2, 2, time=8))
        ('pool:1x4x4', 'pool:4x1x1')
    """
    sides = (-(-grid.time // TIME_CELLS), -(-grid.height // SPACE_CELLS))
    return "pool:" + "x".join(str(side) for side in (*sides, -(-grid.width // SPACE_CELLS)))


def summary_bytes(backbone: Backbone, samples: int) -> int:
    """Bytes of memory that the summaries of so many samples take."""
    taps, _, channels = backbone.spec.shape
    summary, _ = summariser(backbone.spec.grid)
    return samples * taps * summary.tokens * channels * ITEM_BYTES["float16"]


def gather(
    backbone: Backbone,
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    batch_size: int,
    workers: int,
    progress: Callable[[ExtractEvent], None],
) -> Gathered:
    """Run the backbone once over some samples and keep a summary of each plane, in float16.

    What cannot be decoded, or has no finite features, is left out and counted in a warning.
    """
    summary, keep = summariser(backbone.spec.grid)
    taps, _, channels = backbone.spec.shape
    values = torch.zeros((taps, len(samples), summary.tokens, channels), dtype=torch.float16)
    ok = torch.zeros(len(samples), dtype=torch.bool)
    size = min(batch_size, len(samples))
    starts = range(0, len(samples), size)
    groups = [[dataset.media(item) for item in samples[at : at + size]] for at in starts]
    with DecodePool(backbone.preprocessing, workers=workers) as pool:
        for at, batch in zip(starts, pool.batches(groups, pad_to=size), strict=True):
            end = min(at + size, len(samples))
            planes = [keep(plane) for plane in backbone(torch.from_numpy(batch.pixels))]
            kept = torch.stack(planes)[:, : end - at].float().cpu()
            ok[at:end] = kept.isfinite().all(dim=(0, 2, 3))
            ok[[at + failure.position for failure in batch.failures]] = False
            # A few channels of large models are beyond float16; where they end decides nothing.
            values[:, at:end] = kept.clamp_(-_LARGEST, _LARGEST)
            # No bytes: nothing is written, and a summary's would say nothing of an extraction's.
            progress(ExtractEvent(end, len(samples), 0, "scout"))
    values[:, ~ok] = 0
    if not bool(ok.all()):
        log.warning("%d of %d samples could not be read and are left out", (~ok).sum(), len(ok))
    return Gathered(values, ok, summary)
