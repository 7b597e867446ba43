"""A factorised mixer in one step that copies a plane once: branches add to it where it lies.

Each branch is a product with ``W_down``, GELU, and a product with ``W_up`` that is added. Along
every axis these take three operations, whose gradients are again these three:

    read   hidden  = W x            write   x += W^T hidden            pairs   W' = hidden x^T

Kept for the backward are the plane that came in and the hidden units; what a branch has seen is
added up again from them. Source: docs/decisions/0016-video-mixing.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own abbreviation
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from losa.features import TokenGrid


@runtime_checkable
class Axis(Protocol):
    """The three operations along an axis; ``W`` is ``[r c]``, c the width of the axis."""

    def read(self, weight: Tensor, x: Tensor, *, is_up: bool) -> Tensor:
        """Hidden units; ``is_up`` where the weight is that of an update."""
        ...

    def write(self, x: Tensor, weight: Tensor, hidden: Tensor, *, is_up: bool) -> None:
        """Add to a plane what its hidden units say."""
        ...

    def pairs(self, hidden: Tensor, x: Tensor, *, is_up: bool) -> Tensor:
        """The gradient of a weight."""
        ...


class AlongChannels:
    """Hidden units ``[b*l r]``."""

    def read(
        self, weight: Float[Tensor, "r d"], x: Float[Tensor, "b l d"], *, is_up: bool
    ) -> Tensor:
        """See :class:`Axis`."""
        del is_up
        return x.flatten(0, 1) @ weight.t()

    def write(
        self,
        x: Float[Tensor, "b l d"],
        weight: Float[Tensor, "r d"],
        hidden: Tensor,
        *,
        is_up: bool,
    ) -> None:
        """See :class:`Axis`."""
        del is_up
        x.flatten(0, 1).addmm_(hidden, weight)

    def pairs(
        self, hidden: Tensor, x: Float[Tensor, "b l d"], *, is_up: bool
    ) -> Float[Tensor, "r d"]:
        """See :class:`Axis`."""
        del is_up
        return hidden.t() @ x.flatten(0, 1)


class AlongSpace:
    """Hidden units ``[t b r d]``: time steps outermost, so that those of each lie together."""

    def __init__(self, grid: TokenGrid) -> None:
        self._grid = grid

    def read(
        self, weight: Float[Tensor, "r s"], x: Float[Tensor, "b l d"], *, is_up: bool
    ) -> Float[Tensor, "t b r d"]:
        """See :class:`Axis`."""
        count, grid = self._grid.step_prefix, self._grid
        hidden = x.new_empty(grid.time, len(x), len(weight), x.shape[2])
        for units, (prefix, patches) in zip(hidden, self._steps(x), strict=True):
            torch.bmm(_each(weight[:, count:], x), patches, out=units)
            if grid.is_prefix_per_step:
                units.baddbmm_(_each(weight[:, :count], x), prefix)
        if count and not grid.is_prefix_per_step:
            hidden += torch.bmm(_each(self._share(weight, is_up=is_up), x), x[:, :count])
        return hidden

    def write(
        self,
        x: Float[Tensor, "b l d"],
        weight: Float[Tensor, "r s"],
        hidden: Float[Tensor, "t b r d"],
        *,
        is_up: bool,
    ) -> None:
        """See :class:`Axis`."""
        count, grid = self._grid.step_prefix, self._grid
        for units, (prefix, patches) in zip(hidden, self._steps(x), strict=True):
            patches.baddbmm_(_each(weight[:, count:].t(), x), units)
            if grid.is_prefix_per_step:
                prefix.baddbmm_(_each(weight[:, :count].t(), x), units)
        if count and not grid.is_prefix_per_step:
            share = self._share(weight, is_up=is_up).t()
            x[:, :count].baddbmm_(_each(share, x), hidden.sum(0))

    def pairs(
        self, hidden: Float[Tensor, "t b r d"], x: Float[Tensor, "b l d"], *, is_up: bool
    ) -> Float[Tensor, "r s"]:
        """See :class:`Axis`."""
        count, grid = self._grid.step_prefix, self._grid
        found = x.new_zeros(hidden.shape[2], count + grid.positions)
        for units, (prefix, patches) in zip(hidden, self._steps(x), strict=True):
            found[:, count:] += _summed(units, patches)
            if grid.is_prefix_per_step:
                found[:, :count] += _summed(units, prefix)
        if count and not grid.is_prefix_per_step:
            found[:, :count] = _summed(hidden.sum(0), x[:, :count])
            found[:, :count] *= 1.0 / grid.time if is_up else 1.0
        return found

    def _share(self, weight: Tensor, *, is_up: bool) -> Tensor:
        """Weights of a clip's prefix tokens; what the steps say of these is averaged."""
        return weight[:, : self._grid.prefix] * (1.0 / self._grid.time if is_up else 1.0)

    def _steps(self, x: Float[Tensor, "b l d"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Views of each step's own prefix tokens, if any, and of its patches."""
        grid, count = self._grid, self._grid.step_prefix if self._grid.is_prefix_per_step else 0
        for step in range(grid.time):
            first = grid.prefix + step * grid.positions
            yield x[:, step * count : (step + 1) * count], x[:, first : first + grid.positions]


class AlongTime:
    """Hidden units ``[b r rows*d]``: a row for each position, of prefix tokens and of patches."""

    def __init__(self, grid: TokenGrid) -> None:
        self._grid = grid

    def read(
        self, weight: Float[Tensor, "r t"], x: Float[Tensor, "b l d"], *, is_up: bool
    ) -> Float[Tensor, "b r ..."]:
        """See :class:`Axis`."""
        del is_up
        return torch.cat([torch.bmm(_each(weight, x), rows) for rows in self._rows(x)], dim=2)

    def write(
        self,
        x: Float[Tensor, "b l d"],
        weight: Float[Tensor, "r t"],
        hidden: Float[Tensor, "b r ..."],
        *,
        is_up: bool,
    ) -> None:
        """See :class:`Axis`."""
        del is_up
        for rows, units in self._shared_out(x, hidden):
            rows.baddbmm_(_each(weight.t(), x), units)

    def pairs(
        self, hidden: Float[Tensor, "b r ..."], x: Float[Tensor, "b l d"], *, is_up: bool
    ) -> Float[Tensor, "r t"]:
        """See :class:`Axis`."""
        del is_up
        found = [_summed(units, rows) for rows, units in self._shared_out(x, hidden)]
        return torch.stack(found).sum(0)

    def _rows(self, x: Float[Tensor, "b l d"]) -> list[Tensor]:
        """Views ``[b t rows*d]`` of all that has a time."""
        prefix = self._grid.prefix
        parts = [x[:, :prefix]] if self._grid.is_prefix_per_step and prefix else []
        return [
            torch.unflatten(part, 1, (self._grid.time, -1)).flatten(2)
            for part in (*parts, x[:, prefix:])
        ]

    def _shared_out(self, x: Tensor, hidden: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        rows = self._rows(x)
        units = torch.split(hidden, [part.shape[2] for part in rows], dim=2)
        return zip(rows, units, strict=True)


def mixed(
    x: Float[Tensor, "b l d"], axes: Sequence[Axis], weights: Sequence[tuple[Tensor, Tensor]]
) -> Float[Tensor, "b l d"]:
    """``x += W_up GELU(W_down x)`` along one axis after the other, of a copy of ``x``.

    Args:
        x: a plane.
        axes: in their order.
        weights: down- and up-projection along each.
    """
    flat = [weight for down, up in weights for weight in (down, up.t())]
    found: Tensor = _Mixed.apply(x, tuple(axes), *flat)
    return found


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[Axis, ...], *weights: Tensor) -> Tensor:
        ctx.axes = axes
        result, units = x.clone(memory_format=torch.contiguous_format), []
        for axis, down, up in zip(axes, weights[::2], weights[1::2], strict=True):
            units.append(axis.read(down, result, is_up=False))
            axis.write(result, up, F.gelu(units[-1]), is_up=True)
        ctx.save_for_backward(x, *units, *weights)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        axes: tuple[Axis, ...] = ctx.axes
        x, *saved = ctx.saved_tensors
        units, weights = saved[: len(axes)], saved[len(axes) :]
        steps = list(zip(axes, units, weights[::2], weights[1::2], strict=True))
        inputs = [x]
        for axis, hidden, _, up in steps[:-1]:
            inputs.append(inputs[-1].clone(memory_format=torch.contiguous_format))
            axis.write(inputs[-1], up, F.gelu(hidden), is_up=True)
        found: list[Tensor] = []
        back = gradient.clone(memory_format=torch.contiguous_format)
        for axis, hidden, down, up in reversed(steps):
            seen = inputs.pop()
            of_up = axis.pairs(F.gelu(hidden), back, is_up=True)
            of_units = axis.read(up, back, is_up=True)
            of_units = torch.ops.aten.gelu_backward(of_units, hidden)
            found[:0] = [axis.pairs(of_units, seen, is_up=False), of_up]
            if inputs or ctx.needs_input_grad[0]:
                axis.write(back, down, of_units, is_up=False)
        return back if ctx.needs_input_grad[0] else None, None, *found


def _each(weight: Tensor, x: Tensor) -> Tensor:
    """A weight for every sample of a batch, uncopied."""
    return weight.expand(len(x), -1, -1)


def _summed(hidden: Tensor, rows: Tensor) -> Tensor:
    """``hidden rows^T``, summed over the batch."""
    return torch.bmm(hidden, rows.transpose(1, 2)).sum(0)
