"""Products of down-projections with planes as they are stored: no standardised plane is made.

A plane enters a side network as ``x = gain * (scale * values) + shift``: decoding and
standardisation are both a gain and a shift of every channel, and int8 has a scale of every token.
A down-projection of ``x`` is therefore a down-projection of the bare values whose weights took over
the gain, plus a constant. Values of another dtype are converted some samples at a time, in cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Residual = Literal["refine", "sum", "stream"]

PIECE_BYTES: Final = 2**21
"""Bytes of a piece of a plane on a CPU: about what second-level caches hold, and some samples."""


@dataclass(frozen=True, slots=True, eq=False)
class FoldedPlanes:
    """Planes of a batch and what makes them standardised ones.

    ``compute`` is the dtype that products with planes are taken in.
    """

    values: tuple[Shaped[Tensor, "b l d"], ...]
    gain: Float[Tensor, "k d"]
    shift: Float[Tensor, "k d"]
    compute: torch.dtype
    scales: Shaped[Tensor, "k b l"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some samples of what a mixer's updates are added to; ``scales`` are still to be applied."""

    tap: int
    samples: slice
    values: Float[Tensor, "b l d"]
    scales: Float[Tensor, "b l"] | None


def base_tap(residual: Residual, taps: int) -> tuple[int, float]:
    """The tap whose base, times the factor, is what the head would see without any update.

    Source: docs/decisions/0014-fused-step.md, section "Bases".

    Example:
        >>> base_tap("refine", 4), base_tap("stream", 4)
        ((3, 1.0), (0, 0.5))
    """
    return (0, 0.5) if residual == "stream" else (taps - 1, 1.0)


def is_folded(residual: Residual) -> bool:
    """Whether each base is a plane alone, so that gain and shift move into the weights."""
    return residual == "refine"


def pieces(planes: FoldedPlanes, residual: Residual) -> Iterator[Piece]:
    """Every base, some samples at a time, in an order that a run repeats; lives until the next.

    On a CPU a piece is a copy, even of what is in the right dtype: products read it several times,
    with strides that caches do not foresee.
    """
    batch, *shape = planes.values[0].shape
    count = _samples_of_piece(planes, batch)
    kind = planes.compute if is_folded(residual) else planes.gain.dtype
    room = torch.empty(2, count, *shape, dtype=kind, device=planes.gain.device)
    for start in range(0, batch, count):
        samples = slice(start, min(batch, start + count))
        piece, base = room[:, : samples.stop - start]
        for tap in range(len(planes.values)):
            if is_folded(residual):
                yield _bare(planes, tap, samples, piece)
                continue
            _standardised(planes, tap, samples, piece)
            if tap == 0:
                base.copy_(piece)
                piece.mul_(2.0 if residual == "stream" else 1.0)
            elif residual == "stream":
                piece.add_(base)
            else:
                piece.copy_(base.add_(piece))
            yield Piece(tap, samples, piece.to(planes.compute), None)


def down(
    planes: FoldedPlanes,
    residual: Residual,
    channel_down: Float[Tensor, "k r d"],
    token_down: Float[Tensor, "k ... l"],
    pooling: Float[Tensor, "... l"],
) -> tuple[Float[Tensor, "k r b l"], Float[Tensor, "k ... b d"], Float[Tensor, "... b d"]]:
    """Products of every base with its weights along the channels and along the tokens.

    The third are the pooled tokens of what the head would see without any update.
    """
    gain, shift = _gain_and_shift(planes, residual)
    weights = (channel_down * gain[:, None]).to(planes.compute)
    constants = torch.bmm(channel_down, shift[..., None])[..., None]
    base, factor = base_tap(residual, len(gain))
    rows = [*token_down.unbind()]
    rows[base] = torch.cat([rows[base], pooling * factor])
    offsets = [each.sum(1)[:, None, None] * one for each, one in zip(rows, shift, strict=True)]
    batch_size, tokens, channels = planes.values[0].shape
    rank = token_down.shape[1]
    h = gain.new_empty(*channel_down.shape[:2], batch_size, tokens)
    g = gain.new_empty(len(gain), rank, batch_size, channels)
    pooled = gain.new_empty(len(pooling), batch_size, channels)
    for piece in pieces(planes, residual):
        tap, samples = piece.tap, piece.samples
        torch.add(_along_channels(piece, weights[tap]), constants[tap], out=h[tap][:, samples])
        mixed = _along_tokens(piece, rows[tap].to(planes.compute))
        offset = offsets[tap]
        torch.addcmul(offset[:rank], mixed[:rank], gain[tap], out=g[tap][:, samples])
        if tap == base:
            torch.addcmul(offset[rank:], mixed[rank:], gain[tap], out=pooled[:, samples])
    return h, g, pooled


def down_gradients(
    planes: FoldedPlanes,
    residual: Residual,
    along_channels: Float[Tensor, "k r b l"],
    along_tokens: Float[Tensor, "k ... b d"],
) -> tuple[Float[Tensor, "k r d"], Float[Tensor, "k ... l"]]:
    """Gradients of the weights of :func:`down` from those of its products, each summed over b."""
    gain, shift = _gain_and_shift(planes, residual)
    taps, rank, _, tokens = along_channels.shape
    for_channels = gain.new_zeros(taps, rank, gain.shape[1])
    for_tokens = gain.new_zeros(*along_tokens.shape[:2], tokens)
    for piece in pieces(planes, residual):
        tap, samples, values, scales = piece.tap, piece.samples, piece.values, piece.scales
        hidden = along_channels[tap][:, samples].to(values.dtype)
        mixed = (along_tokens[tap][:, samples] * gain[tap]).to(values.dtype)
        if scales is not None:
            hidden = hidden * scales
        for_channels[tap] += torch.mm(hidden.flatten(1), values.flatten(0, 1))
        product = torch.bmm(mixed.transpose(0, 1), values.transpose(1, 2))
        if scales is not None:
            product = product * scales[:, None]
        for_tokens[tap] += product.sum(0)
    if is_folded(residual):
        for_channels = torch.addcmul(
            along_channels.sum((2, 3))[..., None] * shift[:, None], for_channels, gain[:, None]
        )
        for_tokens += torch.bmm(along_tokens.sum(2), shift[..., None])
    return for_channels, for_tokens


def _along_channels(piece: Piece, weight: Float[Tensor, "r d"]) -> Float[Tensor, "r b l"]:
    samples, tokens, _ = piece.values.shape
    # This way round, because the other one, tall and skinny, takes thrice the time.
    hidden = torch.mm(weight, piece.values.flatten(0, 1).t()).view(-1, samples, tokens)
    return hidden if piece.scales is None else hidden * piece.scales


def _along_tokens(piece: Piece, rows: Float[Tensor, "... l"]) -> Float[Tensor, "... b d"]:
    each = rows.expand(len(piece.values), -1, -1)
    if piece.scales is not None:
        each = each * piece.scales[:, None]
    return torch.bmm(each, piece.values).transpose(0, 1)


def _gain_and_shift(
    planes: FoldedPlanes, residual: Residual
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
    """What is still to be applied to the values of :func:`pieces`."""
    if is_folded(residual):
        return planes.gain, planes.shift
    return torch.ones_like(planes.gain), torch.zeros_like(planes.shift)


def _samples_of_piece(planes: FoldedPlanes, batch: int) -> int:
    if planes.gain.device.type != "cpu":
        return batch
    _, tokens, channels = planes.values[0].shape
    sample_bytes = tokens * channels * planes.compute.itemsize
    return max(1, min(batch, PIECE_BYTES // sample_bytes))


def _bare(planes: FoldedPlanes, tap: int, samples: slice, room: Float[Tensor, "b l d"]) -> Piece:
    values = planes.values[tap][samples]
    if values.dtype != planes.compute or not values.is_cuda:
        values = room.copy_(values)
    scales = None if planes.scales is None else planes.scales[tap, samples].to(values.dtype)
    return Piece(tap, samples, values, scales)


def _standardised(
    planes: FoldedPlanes, tap: int, samples: slice, out: Float[Tensor, "b l d"]
) -> None:
    out.copy_(planes.values[tap][samples])
    if planes.scales is not None:
        out.mul_(planes.scales[tap, samples, :, None])
    torch.addcmul(planes.shift[tap], out, planes.gain[tap], out=out)
