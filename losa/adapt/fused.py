"""The side network without full-width streams: one pass over the planes, then low-rank algebra.

Without a norm, what mixer i sees is its base plus a sum of low-rank updates,

    z_i = x_i + sum_{j<i} (A_j U_j + V_j^T B_j),   A_j = GELU(H_j) [b l r],  B_j = GELU(G_j) [b r d]

where U_j, V_j are the transposed up-projections along channels and tokens. Its down-projections are
those of the base plus small products of what is there already:

    H_i = x_i C_i^T + sum_{j<i}  A_j (U_j C_i^T) + V_j^T (B_j C_i^T)
    G_i = D_i x_i   + sum_{j<=i} (D_i A_j) U_j   + sum_{j<i} (D_i V_j^T) B_j

(channels first; the other order moves the equal sign), and the pooled tokens that the head sees are
one more such G, with the pooling in the place of D. So a forward reads each plane once and writes
nothing of its size; a backward reads it once more, for the gradients of C and D. Kept for the
backward are H and G alone. The r of all taps lie side by side, ``[k*r, b, l]`` and ``[k*r, b, d]``:
what came before a tap is then one matrix, and each sum above one product.

Source: docs/decisions/0014-fused-step.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from losa.adapt.folding import Along, FoldedPlanes, Residual, down, down_gradients

Mix = Callable[[int], None]
Kept = tuple[Tensor | None, Tensor | None]

_gelu_gradient: Final = torch.ops.aten.gelu_backward.grad_input


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What of a fused side network is no weight; ``dropout`` is 0 unless it trains."""

    is_channel_first: bool
    residual: Residual
    pooling: Float[Tensor, "... l"]
    dropout: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of all mixers, tap by tap, the up-projections transposed."""

    channel_down: Float[Tensor, "k r d"]
    channel_up: Float[Tensor, "k r d"]
    token_down: Float[Tensor, "k ... l"]
    token_up: Float[Tensor, "k ... l"]


def pooled(planes: FoldedPlanes, form: Form, weights: Weights) -> Float[Tensor, "... b d"]:
    """The pooled tokens of what the last mixer gives, one row of ``form.pooling`` after another."""
    found: Tensor = _Pooled.apply(
        *(planes, form, weights.channel_down, weights.channel_up),
        *(weights.token_down, weights.token_up),
    )
    return found


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: FoldedPlanes, form: Form, *given: Tensor) -> Tensor:
        weights = Weights(*given)
        with torch.autocast(planes.gain.device.type, enabled=False):
            found = down(
                *(planes, form.residual, weights.channel_down, weights.token_down, form.pooling)
            )
            h, g = (hidden.flatten(0, 1) for hidden in found[:2])
            kept = kept_units(form, h, g)
            result = Stream(form, weights, h, g, kept).refine(found[2])
        ctx.form, ctx.planes = form, replace(planes, values=(), scales=None)
        # The planes too, so that autograd sees whether somebody has changed them since.
        ctx.save_for_backward(h, g, *kept, *given, planes.scales, *planes.values)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        h, g, kept_h, kept_g, *given, scales = ctx.saved_tensors[:9]
        planes = replace(ctx.planes, values=ctx.saved_tensors[9:], scales=scales)
        with torch.autocast(gradient.device.type, enabled=False):
            stream = Stream(ctx.form, Weights(*given), h, g, (kept_h, kept_g))
            found = gradients(planes, stream, gradient)
        return None, None, *(getattr(found, name) for name in Weights.__slots__)


def gradients(planes: FoldedPlanes, stream: Stream, gradient: Float[Tensor, "... b d"]) -> Weights:
    """Gradients of all weights from that of the pooled tokens; ``stream`` is the forward's."""
    stream.activate()
    found, along = own_gradients(stream, gradient)
    residual = stream.form.residual
    of_channels, of_tokens = down_gradients(planes, residual, along.channels, along.tokens)
    return replace(
        found,
        channel_down=found.channel_down.add_(of_channels),
        token_down=found.token_down.add_(of_tokens),
    )


def own_gradients(stream: Stream, gradient: Float[Tensor, "... b d"]) -> tuple[Weights, Along]:
    """Gradients of all weights as far as they do not stem from the planes, and of the products.

    From the latter, those of the planes' share of the down-projections are still to be had.
    """
    back = Backward(stream, gradient)
    along = Along(_by_tap(back.h, stream.taps), _by_tap(back.g[: len(stream.g)], stream.taps))
    return back.of_weights(), along


def kept_units(form: Form, h: Tensor, g: Tensor) -> Kept:
    """Which hidden units dropout keeps, along the channels and along the tokens; or nothing."""
    if not form.dropout:
        return None, None
    share = 1.0 - form.dropout
    drawn = [torch.empty_like(hidden, dtype=torch.bool).bernoulli_(share) for hidden in (h, g)]
    return drawn[0], drawn[1]


class Stream:
    """Hidden units of all mixers, before GELU (``h``, ``g``) and after it (``a``, ``b``).

    ``of_a`` and ``of_b`` are what later readers along the other axis make of ``a`` and ``b``; zero
    where a mixing does not come later. The pooling is the last reader along the tokens.
    """

    def __init__(self, form: Form, weights: Weights, h: Tensor, g: Tensor, kept: Kept) -> None:
        self.form, self.h, self.g = form, h, g
        self.kept_h, self.kept_g = kept
        self.taps, self.rank, _ = weights.channel_down.shape
        self.token_rank = weights.token_down.shape[1]
        self.channel_down = weights.channel_down.flatten(0, 1)
        self.channel_up = weights.channel_up.flatten(0, 1)
        self.token_up = weights.token_up.flatten(0, 1)
        self.readers = torch.cat([weights.token_down.flatten(0, 1), form.pooling])
        # What a mixing makes of an earlier one's updates along its own axis.
        self.channel_pairs = self.channel_down @ self.channel_up.t()
        self.token_pairs = self.readers @ self.token_up.t()
        self.a, self.b = torch.empty_like(h), torch.empty_like(g)
        self.of_a = h.new_zeros(len(h), h.shape[1], len(self.readers))
        self.of_b = h.new_zeros(len(h), h.shape[1], len(g))

    def channels_of(self, tap: int) -> slice:
        """Rows of a tap among the hidden units along the channels."""
        return slice(tap * self.rank, (tap + 1) * self.rank)

    def tokens_of(self, tap: int) -> slice:
        """Rows of a tap among the hidden units along the tokens."""
        return slice(tap * self.token_rank, (tap + 1) * self.token_rank)

    def tokens_before(self, tap: int) -> int:
        """How many hidden units along the tokens precede the channel mixing of a tap."""
        return (tap if self.form.is_channel_first else tap + 1) * self.token_rank

    def channels_before(self, tap: int) -> int:
        """How many hidden units along the channels precede the token mixing of a tap."""
        return (tap + 1 if self.form.is_channel_first else tap) * self.rank

    def refine(self, base: Float[Tensor, "... b d"]) -> Float[Tensor, "... b d"]:
        """Let every mixing see those before it; ``base`` becomes the pooled tokens of the last."""
        for tap in range(self.taps):
            for mix in self._in_order(self._mix_channels, self._mix_tokens):
                mix(tap)
        _add_product(base, _turned(self.of_a[..., len(self.g) :]), self.channel_up)
        _flat(base).addmm_(self.token_pairs[len(self.g) :], _flat(self.b))
        return base

    def drop(self, hidden: Tensor, kept: Tensor | None, rows: slice) -> None:
        """Dropout of the units of one mixing, or of their gradients, in place."""
        if kept is not None:
            hidden.mul_(kept[rows]).mul_(1.0 / (1.0 - self.form.dropout))

    def activate(self) -> None:
        """Compute again what the forward did not keep."""
        for tap in range(self.taps):
            self._activate_channels(tap)
            self._activate_tokens(tap)

    def _in_order(self, channels: Mix, tokens: Mix) -> tuple[Mix, Mix]:
        return (channels, tokens) if self.form.is_channel_first else (tokens, channels)

    def _mix_channels(self, tap: int) -> None:
        rows, seen = self.channels_of(tap), self.tokens_before(tap)
        h = self.h[rows]
        if tap:
            _flat(h).addmm_(self.channel_pairs[rows, : rows.start], _flat(self.a[: rows.start]))
        if seen:
            _add_product(h, self.of_b[rows, :, :seen], self.token_up[:seen])
        self._activate_channels(tap)

    def _mix_tokens(self, tap: int) -> None:
        rows, seen = self.tokens_of(tap), self.channels_before(tap)
        g = self.g[rows]
        if tap:
            _flat(g).addmm_(self.token_pairs[rows, : rows.start], _flat(self.b[: rows.start]))
        if seen:
            _add_product(g, _turned(self.of_a[:seen, :, rows]), self.channel_up[:seen])
        self._activate_tokens(tap)

    def _activate_channels(self, tap: int) -> None:
        rows, first = self.channels_of(tap), self.tokens_before(tap)
        a = torch.ops.aten.gelu.out(self.h[rows], out=self.a[rows])
        self.drop(a, self.kept_h, rows)
        self.of_a[rows, :, first:] = (a.flatten(0, 1) @ self.readers[first:].t()).view(
            self.rank, -1, len(self.readers) - first
        )

    def _activate_tokens(self, tap: int) -> None:
        rows, first = self.tokens_of(tap), self.channels_before(tap)
        b = torch.ops.aten.gelu.out(self.g[rows], out=self.b[rows])
        self.drop(b, self.kept_g, rows)
        if first < len(self.h):
            self.of_b[first:, :, rows] = _read(self.channel_down[first:], b)


class Backward:
    """Gradients of the hidden units (``h``, ``g``) and of what is read from them, last tap first.

    The last rows of ``g`` are the gradient of the pooled tokens.
    """

    def __init__(self, stream: Stream, gradient: Float[Tensor, "... b d"]) -> None:
        self._stream = stream
        count = len(stream.g)
        self.h = torch.empty_like(stream.h)
        self.g = gradient.new_empty(len(stream.readers), *gradient.shape[1:])
        self.g[count:] = gradient
        self.of_a, self.of_b = torch.zeros_like(stream.of_a), torch.zeros_like(stream.of_b)
        self.of_a[..., count:] = _read(stream.channel_up, self.g[count:])
        mixings = self._channels, self._tokens
        for tap in reversed(range(stream.taps)):
            for mix in mixings[::-1] if stream.form.is_channel_first else mixings:
                mix(tap)

    def of_weights(self) -> Weights:
        """Gradients of the weights, as far as they do not stem from the planes."""
        s = self._stream
        pairs = _earlier(_flat(self.h) @ _flat(s.a).t(), s.rank)
        token_pairs = _flat(self.g) @ _flat(s.b).t()
        own = _earlier(token_pairs[: len(s.g)], s.token_rank)
        token_pairs = torch.cat([own, token_pairs[len(s.g) :]])
        channel_down = _side_by_side(self.of_b) @ s.b.flatten(0, 1)
        channel_up = _side_by_side(s.of_a) @ self.g.flatten(0, 1)
        token_down = self.of_a[..., : len(s.g)].flatten(0, 1).t() @ s.a.flatten(0, 1)
        token_up = s.of_b.flatten(0, 1).t() @ self.h.flatten(0, 1)
        found = (
            channel_down.addmm_(pairs, s.channel_up),
            channel_up.addmm_(pairs.t(), s.channel_down),
            token_down.addmm_(own, s.token_up),
            token_up.addmm_(token_pairs.t(), s.readers),
        )
        return Weights(*(_by_tap(weight, s.taps) for weight in found))

    def _tokens(self, tap: int) -> None:
        s = self._stream
        rows, first = s.tokens_of(tap), s.channels_before(tap)
        gradient = s.token_pairs[rows.stop :, rows].t() @ _flat(self.g[rows.stop :])
        gradient = gradient.view_as(s.g[rows])
        if first < len(s.h):
            _add_product(gradient, _turned(self.of_b[first:, :, rows]), s.channel_down[first:])
        s.drop(gradient, s.kept_g, rows)
        _gelu_gradient(gradient, s.g[rows], grad_input=self.g[rows])
        if first:
            self.of_a[:first, :, rows] = _read(s.channel_up[:first], self.g[rows])

    def _channels(self, tap: int) -> None:
        s = self._stream
        rows, first = s.channels_of(tap), s.tokens_before(tap)
        gradient = self.of_a[rows].flatten(0, 1)[:, first:] @ s.readers[first:]
        gradient = gradient.view_as(s.h[rows])
        if rows.stop < len(s.h):
            pairs = s.channel_pairs[rows.stop :, rows].t()
            _flat(gradient).addmm_(pairs, _flat(self.h[rows.stop :]))
        s.drop(gradient, s.kept_h, rows)
        _gelu_gradient(gradient, s.h[rows], grad_input=self.h[rows])
        if first:
            read = self.h[rows].flatten(0, 1) @ s.token_up[:first].t()
            self.of_b[rows, :, :first] = read.view(s.rank, -1, first)


def _by_tap(rows: Tensor, taps: int) -> Tensor:
    return rows.view(taps, -1, *rows.shape[1:])


def _flat(hidden: Tensor) -> Tensor:
    """One row a hidden unit."""
    return hidden.flatten(1)


def _turned(read: Tensor) -> Tensor:
    """``[k*r, b, rows]`` as ``[rows, b, k*r]``."""
    return read.permute(2, 1, 0)


def _side_by_side(read: Tensor) -> Tensor:
    """``[k*r, b, rows]`` as a matrix whose columns are those rows' samples."""
    return read.transpose(1, 2).flatten(1)


def _read(weight: Tensor, hidden: Tensor) -> Tensor:
    """Products along the last axis of ``hidden`` ``[rows, b, d]``, as ``[k*r, b, rows]``."""
    # This way round, because the other one, tall and skinny, takes thrice the time.
    found = weight @ hidden.flatten(0, 1).t()
    return found.view(len(weight), *hidden.shape[:2]).transpose(1, 2)


def _add_product(hidden: Tensor, read: Tensor, weight: Tensor) -> None:
    """Add ``read [rows, b, k*r] @ weight [k*r, width]`` to ``hidden [rows, b, width]``."""
    hidden.flatten(0, 1).addmm_(read.flatten(0, 1), weight)


def _earlier(pairs: Tensor, rank: int) -> Tensor:
    """Keep of a product of all hidden units with all those whose column is of an earlier tap."""
    tap = torch.arange(len(pairs), device=pairs.device) // rank
    return pairs * (tap[:, None] > tap)
