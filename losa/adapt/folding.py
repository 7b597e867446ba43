"""Products of down-projections with planes as they are stored: no standardised plane is made.

A plane enters a side network as ``x = gain * (scale * values) + shift``: decoding and
standardisation are both a gain and a shift of every channel, and int8 has a scale of every token.
A down-projection of ``x`` is therefore a down-projection of the bare values whose weights took over
the gain, plus a constant. Values of another dtype are converted some samples at a time, in cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Residual = Literal["refine", "sum", "stream"]

PIECE_BYTES: Final = 2**21
"""Bytes of a piece of a plane on a CPU: about what second-level caches hold, and some samples."""

ROWS: Final = 4
"""Ranks whose products do not depend on what lies beside them are multiples of this."""

SMALL: Final = 400
"""Multiplications of a batched product that torch leaves to no BLAS."""


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
class Along:
    """What a trial has along both axes of its planes: weights, hidden units, or gradients."""

    channels: Float[Tensor, "..."]
    tokens: Float[Tensor, "..."]


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
    count = samples_of_piece(planes, batch)
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
    (found,), base = down_all(planes, residual, [Along(channel_down, token_down)], pooling)
    return found.channels, found.tokens, base


def down_gradients(
    planes: FoldedPlanes,
    residual: Residual,
    along_channels: Float[Tensor, "k r b l"],
    along_tokens: Float[Tensor, "k ... b d"],
) -> tuple[Float[Tensor, "k r d"], Float[Tensor, "k ... l"]]:
    """Gradients of the weights of :func:`down` from those of its products, each summed over b."""
    (found,) = down_gradients_all(planes, residual, [Along(along_channels, along_tokens)])
    return found.channels, found.tokens


def can_lie_beside(
    ranks: tuple[int, int], shape: tuple[int, int, int], device: torch.device
) -> bool:
    """Whether a trial's products with planes of ``(k, l, d)`` may be taken together with others'.

    On a CPU only where each of its rows then is what it is alone, to the last bit: leftover rows
    of a matrix, and very small matrices, go through other kernels. On CUDA always: there rounding
    depends on all of a product's shape, and the time on the number of products.

    Example:
        >>> cpu = torch.device("cpu")
        >>> [can_lie_beside((r, 4), (4, 65, 384), cpu) for r in (8, 6)]
        [True, False]
    """
    _, tokens, channels = shape
    is_regular = all(rank % ROWS == 0 for rank in ranks)
    return device.type != "cpu" or (is_regular and ROWS * tokens * channels >= SMALL)


def down_all(
    planes: FoldedPlanes,
    residual: Residual,
    weights: Sequence[Along],
    pooling: Float[Tensor, "... l"],
) -> tuple[list[Along], Float[Tensor, "... b d"]]:
    """Products of every base with each trial's weights, and its pooled tokens, which are shared.

    Args:
        planes: of a batch.
        residual: what the bases are.
        weights: of each trial, ``[k r d]`` and ``[k r l]``; ranks may differ.
        pooling: the rows that pool the tokens.

    Returns:
        of each trial ``[k r b l]`` and ``[k r b d]``; and the pooled tokens.
    """
    gain, shift = _gain_and_shift(planes, residual)
    batch, tokens, channels = planes.values[0].shape
    joint = _joint(weights, planes, residual, pooling)
    constants = [torch.bmm(one.channels, shift[..., None])[..., None] for one in weights]
    found = [
        Along(
            gain.new_empty(*one.channels.shape[:2], batch, tokens),
            gain.new_empty(*one.tokens.shape[:2], batch, channels),
        )
        for one in weights
    ]
    pooled = gain.new_empty(len(pooling), batch, channels)
    base, _ = base_tap(residual, len(gain))
    for piece in pieces(planes, residual):
        tap, samples = piece.tap, piece.samples
        along = _times_channels(piece, joint.channels[tap])
        for one, constant, rows in zip(found, constants, joint.channel_rows, strict=True):
            torch.add(along[rows], constant[tap], out=one.channels[tap][:, samples])
        along = _times_tokens(piece, joint.tokens[tap].to(planes.compute))
        offset = joint.offsets[tap]
        for one, rows in zip(found, joint.token_rows, strict=True):
            out = one.tokens[tap][:, samples]
            torch.addcmul(offset[rows], along[rows], gain[tap], out=out)
        if tap == base:
            last = slice(joint.token_rows[-1].stop, None)
            torch.addcmul(offset[last], along[last], gain[tap], out=pooled[:, samples])
    return found, pooled


def down_gradients_all(
    planes: FoldedPlanes, residual: Residual, along: Sequence[Along]
) -> list[Along]:
    """Gradients of the weights of :func:`down_all` from those of each trial's products."""
    gain, _ = _gain_and_shift(planes, residual)
    channel_rows = _rows([one.channels.shape[1] for one in along])
    token_rows = _rows([one.tokens.shape[1] for one in along])
    taps, _, _, tokens = along[0].channels.shape
    for_channels = gain.new_zeros(taps, channel_rows[-1].stop, gain.shape[1])
    for_tokens = gain.new_zeros(taps, token_rows[-1].stop, tokens)
    for piece in pieces(planes, residual):
        tap, samples, values, scales = piece.tap, piece.samples, piece.values, piece.scales
        hidden = torch.cat([one.channels[tap][:, samples] for one in along]).to(values.dtype)
        if scales is not None:
            hidden = hidden * scales
        for_channels[tap] += torch.mm(hidden.flatten(1), values.flatten(0, 1))
        mixed = gain.new_empty(token_rows[-1].stop, *values.shape[::2])
        for one, rows in zip(along, token_rows, strict=True):
            torch.mul(one.tokens[tap][:, samples], gain[tap], out=mixed[rows])
        mixed = mixed.to(values.dtype)
        product = torch.bmm(mixed.transpose(0, 1), values.transpose(1, 2))
        if scales is not None:
            product = product * scales[:, None]
        for rows in token_rows:
            # Each by itself: how a sum is rounded depends on the columns beside it.
            for_tokens[tap, rows] += product[:, rows].sum(0)
    shares = zip(along, channel_rows, token_rows, strict=True)
    return [
        Along(
            *_finished(
                *(planes, residual, one.channels, one.tokens),
                (for_channels[:, of_channels], for_tokens[:, of_tokens]),
            )
        )
        for one, of_channels, of_tokens in shares
    ]


def _finished(
    planes: FoldedPlanes,
    residual: Residual,
    along_channels: Float[Tensor, "k r b l"],
    along_tokens: Float[Tensor, "k ... b d"],
    found: tuple[Float[Tensor, "k r d"], Float[Tensor, "k ... l"]],
) -> tuple[Float[Tensor, "k r d"], Float[Tensor, "k ... l"]]:
    """The gradients of :func:`down_gradients` from those of products with the bare values."""
    gain, shift = _gain_and_shift(planes, residual)
    for_channels, for_tokens = found
    if not is_folded(residual):
        return for_channels, for_tokens
    constant = along_channels.sum((2, 3))[..., None] * shift[:, None]
    for_channels = torch.addcmul(constant, for_channels, gain[:, None])
    return for_channels, for_tokens + torch.bmm(along_tokens.sum(2), shift[..., None])


def _times_channels(piece: Piece, weight: Float[Tensor, "... d"]) -> Float[Tensor, "... b l"]:
    """A piece, down along its channels."""
    samples, tokens, _ = piece.values.shape
    # This way round, because the other one, tall and skinny, takes thrice the time.
    hidden = torch.mm(weight, piece.values.flatten(0, 1).t()).view(-1, samples, tokens)
    return hidden if piece.scales is None else hidden * piece.scales


def _times_tokens(piece: Piece, rows: Float[Tensor, "... l"]) -> Float[Tensor, "... b d"]:
    """A piece, down along its tokens."""
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


def samples_of_piece(planes: FoldedPlanes, batch: int) -> int:
    """How many samples of a batch are worked on at once: on a CPU as many as caches hold."""
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


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """All trials' weights as one matrix a tap, and which rows of it are whose."""

    channels: Float[Tensor, "k ... d"]
    tokens: list[Tensor]
    offsets: list[Tensor]
    channel_rows: list[slice]
    token_rows: list[slice]


def _joint(
    weights: Sequence[Along], planes: FoldedPlanes, residual: Residual, pooling: Tensor
) -> _Joint:
    gain, shift = _gain_and_shift(planes, residual)
    channels = torch.cat([one.channels for one in weights], 1)
    tokens = [*torch.cat([one.tokens for one in weights], 1).unbind()]
    base, factor = base_tap(residual, len(gain))
    tokens[base] = torch.cat([tokens[base], pooling * factor])
    return _Joint(
        (channels * gain[:, None]).to(planes.compute),
        tokens,
        [each.sum(1)[:, None, None] * one for each, one in zip(tokens, shift, strict=True)],
        _rows([one.channels.shape[1] for one in weights]),
        _rows([one.tokens.shape[1] for one in weights]),
    )


def _rows(ranks: Sequence[int]) -> list[slice]:
    return [slice(*bounds) for bounds in pairwise(accumulate(ranks, initial=0))]
