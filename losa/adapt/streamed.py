"""A side network that mixes space and time apart, sample by sample while they are in cache.

Whatever the residual form, such a network is one stream through all branches of all mixers, to
which a plane is added before each mixer:

    z_1 = c b_1,    z_{i+1} = v_i - m b_i + b_{i+1},    the head sees v_k - q b_k

where v_i is z_i after the branches of mixer i, each ``z += W_up GELU(W_down z)``. So a few samples
run through all mixers at once, updated where they lie, and nothing as large as a batch's plane is
written but the hidden units and one plane, which the backward starts from: there the updates are
taken away again, one after another, so that what each branch has seen need not be kept. On CUDA
"a few samples" are the whole batch.

Source: docs/decisions/0016-video-mixing.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own abbreviation
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from losa.adapt.folding import FoldedPlanes, Residual, samples_of_piece
from losa.features import TokenGrid

Axis = Literal["channel", "space", "time"]
Pair = tuple[Tensor, Tensor]
"""Down-projection ``[r c]`` and up-projection of a branch."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamForm:
    """What of such a network is no weight: each mixer's branches in order, and the pooling."""

    grid: TokenGrid
    axes: tuple[Axis, ...]
    residual: Residual
    starts_at_first: bool
    pooling: Float[Tensor, "... l"]

    @property
    def first_factor(self) -> float:
        """What the first plane is multiplied by."""
        return 2.0 if self.starts_at_first or self.residual == "stream" else 1.0


def streamed(
    planes: FoldedPlanes, form: StreamForm, weights: Sequence[Pair]
) -> Float[Tensor, "b ... d"]:
    """The pooled tokens of what the last mixer gives.

    Args:
        planes: of a batch.
        form: of the network.
        weights: of every branch, mixer by mixer; ``W_up`` as ``[c r]``.
    """
    flat = [weight for down, up in weights for weight in (down, up.t())]
    if not torch.is_grad_enabled():
        return _forward(planes, form, _paired(flat), None)
    found: Tensor = _Streamed.apply(planes, form, *flat)
    return found


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: FoldedPlanes, form: StreamForm, *given: Tensor) -> Tensor:
        kept: list[Tensor] = []
        found = _forward(planes, form, _paired(given), kept)
        ctx.form, ctx.planes = form, replace(planes, values=(), scales=None)
        ctx.counts = len(given), len(planes.values)
        # The planes too, so that autograd sees whether somebody has changed them since.
        ctx.save_for_backward(*given, *planes.values, planes.scales, *kept)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        count, taps = ctx.counts
        saved, form = ctx.saved_tensors, ctx.form
        given, values, scales = saved[:count], saved[count : count + taps], saved[count + taps]
        planes = replace(ctx.planes, values=values, scales=scales)
        weights, kept = _paired(given), iter(saved[count + taps + 1 :])
        found = [torch.zeros_like(weight) for weight in given]
        for samples in _pieces(planes):
            bases = _Bases(planes, form.grid, samples)
            units = [next(kept) for _ in weights]
            # Copied: what was saved may be asked for again.
            seen = _Stream(form.grid, *(next(kept).clone() for _ in bases.of(0).parts))
            back = bases.of(0).like_pooled(form.pooling, gradient[samples])
            _unrun(bases, form, weights, (units, seen, back), found)
        return None, None, *found


def _forward(
    planes: FoldedPlanes, form: StreamForm, weights: Sequence[Pair], kept: list[Tensor] | None
) -> Tensor:
    """Pooled tokens; what the way back needs goes into ``kept``, if there is one."""
    results = []
    for samples in _pieces(planes):
        bases = _Bases(planes, form.grid, samples)
        units, stream = _run(bases, form, weights)
        if kept is not None:
            # Copied: the last update, which is not taken away again, is written next.
            kept += [*units, *stream.scaled(1.0).parts]
        stream.write(form.axes[-1], weights[-1][1], F.gelu(units[-1]), is_up=True)
        if form.residual == "stream":
            stream.add(bases.of(len(planes.values) - 1), -1.0)
        results.append(stream.pooled(form.pooling))
    return torch.cat(results)


def _run(bases: _Bases, form: StreamForm, weights: Sequence[Pair]) -> tuple[list[Tensor], _Stream]:
    """Hidden units of all branches, and the stream as the last branch sees it."""
    units: list[Tensor] = []
    stream = bases.of(0)
    before, stream = stream, stream.scaled(form.first_factor)
    width = len(form.axes)
    for at, (down, up) in enumerate(weights):
        tap, branch = divmod(at, width)
        if tap and not branch:
            before = _step(stream, bases, tap, before, form)
        units.append(stream.read(form.axes[branch], down, is_up=False))
        if at + 1 < len(weights):
            stream.write(form.axes[branch], up, F.gelu(units[-1]), is_up=True)
    return units, stream


def _step(stream: _Stream, bases: _Bases, tap: int, before: _Stream, form: StreamForm) -> _Stream:
    """Make of what a mixer gives what the one of ``tap`` sees; returns the plane of ``tap``."""
    # The difference first: where nothing is refined yet it is exactly zero.
    if form.residual != "sum":
        stream.add(before, -1.0)
    plane = bases.of(tap)
    stream.add(plane, 1.0)
    return plane


def _unrun(
    bases: _Bases,
    form: StreamForm,
    weights: Sequence[Pair],
    state: tuple[list[Tensor], _Stream, _Stream],
    found: list[Tensor],
) -> None:
    """Add gradients of all weights to ``found``, last branch first; consumes the state."""
    units, seen, back = state
    width = len(form.axes)
    for at in reversed(range(len(weights))):
        (down, up), axis = weights[at], form.axes[at % width]
        hidden = units.pop()
        activated = F.gelu(hidden)
        if at + 1 < len(weights):
            seen.write(axis, up, activated.neg(), is_up=True)
        found[2 * at + 1] += back.pairs(axis, activated, is_up=True)
        of_units = back.read(axis, up, is_up=True)
        of_units = torch.ops.aten.gelu_backward(of_units, hidden)
        found[2 * at] += seen.pairs(axis, of_units, is_up=False)
        if at:
            back.write(axis, down, of_units, is_up=False)
        if at and at % width == 0:
            seen.add(bases.of(at // width), -1.0)
            if form.residual != "sum":
                seen.add(bases.of(at // width - 1), 1.0)


class _Stream:
    """Tokens of some samples: those of each step, its own prefix first, and a clip's prefix.

    Along every axis there are three operations, whose gradients are again these three:

        read   hidden  = W x        write   x += W^T hidden        pairs   W' = hidden x^T

    ``is_up`` where the weight is that of an update: of what the steps say of a clip's prefix tokens
    the mean is taken.
    """

    def __init__(
        self, grid: TokenGrid, body: Float[Tensor, "b t s d"], clip: Tensor | None = None
    ) -> None:
        self._grid, self._body, self._clip = grid, body, clip

    @property
    def parts(self) -> list[Tensor]:
        """The tensors that it is made of."""
        return [self._body] if self._clip is None else [self._body, self._clip]

    def scaled(self, factor: float) -> _Stream:
        """A copy, multiplied."""
        return _Stream(self._grid, *(part * factor for part in self.parts))

    def add(self, other: _Stream, factor: float) -> None:
        """Add another, multiplied."""
        for part, more in zip(self.parts, other.parts, strict=True):
            part.add_(more, alpha=factor)

    def pooled(self, pooling: Float[Tensor, "... l"]) -> Float[Tensor, "b ... d"]:
        """Rows of ``pooling`` times the tokens."""
        of_body, of_clip = self._shares(pooling)
        found = _product(of_body, self._body.flatten(1, 2))
        return found if self._clip is None else found + _product(of_clip, self._clip)

    def like_pooled(
        self, pooling: Float[Tensor, "... l"], gradient: Float[Tensor, "b ... d"]
    ) -> _Stream:
        """The gradient of the tokens from that of the pooled ones."""
        of_body, of_clip = self._shares(pooling)
        body = _product(of_body.t(), gradient).view_as(self._body)
        clip = None if self._clip is None else _product(of_clip.t(), gradient)
        return _Stream(self._grid, body, clip)

    def read(self, axis: Axis, weight: Float[Tensor, "r c"], *, is_up: bool) -> Tensor:
        """Hidden units: of channels a row for each token, of tokens a row for each unit."""
        if axis == "channel":
            return self._tokens() @ weight.t()
        if axis == "time":
            return _product(weight, self._times())
        body = self._steps()
        if self._clip is None:
            return _product(weight, body)
        of_clip, of_body = self._clip_shares(weight, is_up=is_up)
        hidden = _product(of_body, body)
        own = _product(of_clip, self._clip)
        torch.unflatten(hidden, 0, (len(own), -1)).add_(own[:, None])
        return hidden

    def write(
        self, axis: Axis, weight: Float[Tensor, "r c"], hidden: Tensor, *, is_up: bool
    ) -> None:
        """Add what hidden units say."""
        if axis == "channel":
            sizes = [part.shape[:-1].numel() for part in self.parts]
            for part, units in zip(self.parts, torch.split(hidden, sizes), strict=True):
                part.flatten(0, -2).addmm_(units, weight)
            return
        if axis == "time":
            self._times().baddbmm_(_each(weight.t(), self._body), hidden)
            return
        body, of_body = self._steps(), weight
        if self._clip is not None:
            of_clip, of_body = self._clip_shares(weight, is_up=is_up)
            summed = torch.unflatten(hidden, 0, (len(self._clip), -1)).sum(1)
            self._clip.baddbmm_(_each(of_clip.t(), self._clip), summed)
        body.baddbmm_(_each(of_body.t(), body), hidden)

    def pairs(self, axis: Axis, hidden: Tensor, *, is_up: bool) -> Float[Tensor, "r c"]:
        """The gradient of a weight."""
        if axis == "channel":
            return hidden.t() @ self._tokens()
        if axis == "time":
            return _summed(hidden, self._times())
        found = _summed(hidden, self._steps())
        if self._clip is None:
            return found
        of_clip = _summed(torch.unflatten(hidden, 0, (len(self._clip), -1)).sum(1), self._clip)
        return torch.cat([of_clip * (1.0 / self._grid.time if is_up else 1.0), found], dim=1)

    def _tokens(self) -> Float[Tensor, "... d"]:
        """One row a token."""
        rows = [part.flatten(0, -2) for part in self.parts]
        # A copy only where it must be.
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _steps(self) -> Float[Tensor, "... s d"]:
        """One matrix a step."""
        return self._body.flatten(0, 1)

    def _times(self) -> Float[Tensor, "b t ..."]:
        """One matrix a sample, with all that belongs to a step in a row."""
        return self._body.flatten(2)

    def _clip_shares(self, weight: Tensor, *, is_up: bool) -> tuple[Tensor, Tensor]:
        """A weight's columns of a clip's prefix tokens, and those of a step's patches."""
        count = self._grid.prefix
        return weight[:, :count] * (1.0 / self._grid.time if is_up else 1.0), weight[:, count:]

    def _shares(self, pooling: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of the tokens of the steps, in their order here, and of a clip's prefix."""
        grid, count = self._grid, self._grid.step_prefix
        of_patches = torch.unflatten(pooling[:, grid.prefix :], 1, (grid.time, -1))
        if not grid.is_prefix_per_step:
            return of_patches.flatten(1), pooling[:, : grid.prefix]
        of_prefix = pooling[:, : grid.prefix].reshape(len(pooling), grid.time, count)
        return torch.cat([of_prefix, of_patches], dim=2).flatten(1), pooling[:, :0]


class _Bases:
    """Standardised planes of some samples, made when they are asked for."""

    def __init__(self, planes: FoldedPlanes, grid: TokenGrid, samples: slice) -> None:
        self._planes, self._grid, self._samples = planes, grid, samples

    def of(self, tap: int) -> _Stream:
        """The plane of a tap, its own to be written to."""
        planes, grid = self._planes, self._grid
        values = planes.values[tap][self._samples]
        scales = None if planes.scales is None else planes.scales[tap, self._samples, :, None]
        count = grid.step_prefix if grid.is_prefix_per_step else 0
        body = planes.gain.new_empty(
            len(values), grid.time, count + grid.positions, values.shape[2]
        )
        self._put(body[:, :, count:], values, scales, slice(grid.prefix, None))
        clip = None
        if count:
            self._put(body[:, :, :count], values, scales, slice(grid.prefix))
        elif grid.prefix:
            clip = planes.gain.new_empty(len(values), grid.prefix, values.shape[2])
            self._put(clip[:, None], values, scales, slice(grid.prefix))
        found = _Stream(grid, body, clip)
        for part in found.parts:
            torch.addcmul(planes.shift[tap], part, planes.gain[tap], out=part)
        return found

    def _put(self, room: Tensor, values: Tensor, scales: Tensor | None, tokens: slice) -> None:
        """Copy tokens ``[b t s d]`` to where they belong."""
        room.copy_(torch.unflatten(values[:, tokens], 1, room.shape[1:3]))
        if scales is not None:
            room.mul_(torch.unflatten(scales[:, tokens], 1, room.shape[1:3]))


def _pieces(planes: FoldedPlanes) -> Iterator[slice]:
    batch = len(planes.values[0])
    count = samples_of_piece(planes, batch)
    for start in range(0, batch, count):
        yield slice(start, min(batch, start + count))


def _paired(given: Sequence[Tensor]) -> list[Pair]:
    return list(zip(given[::2], given[1::2], strict=True))


def _each(weight: Tensor, x: Tensor) -> Tensor:
    """A weight for every matrix of a batch, uncopied."""
    return weight.expand(len(x), -1, -1)


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """A weight times every matrix of a batch."""
    # bmm, not matmul: matmul folds the batch into one GEMM and copies what it multiplies.
    return torch.bmm(_each(weight, x), x)


def _summed(hidden: Tensor, rows: Tensor) -> Tensor:
    """``hidden rows^T``, summed over the batch."""
    return torch.bmm(hidden, rows.transpose(1, 2)).sum(0)
