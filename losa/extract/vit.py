"""timm's plain vision transformers, frozen, read at their taps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from losa.errors import UsageError
from losa.extract.frozen import Scaling, casting, compiling
from losa.extract.known import Anatomy
from losa.extract.transforms import Preprocessing
from losa.features import FeatureSpec

_NEEDED_OPTIONS: Final = frozenset(
    ["indices", "return_prefix_tokens", "norm", "stop_early", "output_fmt", "intermediates_only"]
)
_NEEDED_PARTS: Final = ("blocks", "patch_embed", "num_prefix_tokens", "embed_dim")


def anatomy_of(model: nn.Module, name: str) -> Anatomy:
    """Look at a timm model, perhaps one without weights.

    Raises:
        UsageError: the model is not a plain vision transformer that gives its intermediate planes.
    """
    parts: Any = model
    forward = getattr(model, "forward_intermediates", None)
    options = set(inspect.signature(forward).parameters) if callable(forward) else set()
    complete = all(hasattr(model, part) for part in _NEEDED_PARTS)
    if (
        not complete
        or not options >= _NEEDED_OPTIONS
        or not hasattr(parts.patch_embed, "grid_size")
    ):
        what = f"{name} is not a plain vision transformer with forward_intermediates"
        raise UsageError("--model", what, "choose a ViT, DINOv2, CLIP or EVA model of timm")
    height, width = parts.patch_embed.patch_size
    return Anatomy(
        len(parts.blocks), int(parts.embed_dim), int(parts.num_prefix_tokens), (height, width)
    )


@dataclass(frozen=True, eq=False)
class ViTBackbone:
    """A frozen timm vision transformer that turns 8-bit pixels into one plane for each tap.

    Planes are the residual stream after each tap's block, without the final norm: prefix tokens
    first, then patches row by row, as the token policy leaves them.
    """

    model: nn.Module
    name: str
    weights_digest: str
    preprocessing: Preprocessing
    spec: FeatureSpec
    pool: Callable[[Tensor], Tensor]
    device: torch.device
    amp_dtype: torch.dtype | None
    is_compiled: bool = False
    _scaling: Scaling = field(init=False)
    _compiled: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.model.requires_grad_(requires_grad=False).eval().to(self.device)
        object.__setattr__(self, "_scaling", Scaling.on(self.device, self.preprocessing))
        if self.is_compiled:
            forward: Any = self.model.forward_intermediates
            # Batches of a store have one shape: nothing is to be gained by a dynamic one.
            object.__setattr__(self, "_compiled", torch.compile(forward, dynamic=False))

    @property
    def depth(self) -> int:
        """Blocks of the backbone, which are the taps there are."""
        return anatomy_of(self.model, self.name).depth

    def with_taps(self, taps: tuple[int, ...]) -> ViTBackbone:
        """The same network read at other taps; its weights are shared."""
        return replace(self, spec=self.spec.with_taps(taps))

    def in_float32(self) -> ViTBackbone | None:
        """The same network without autocast; ``None`` where there is none."""
        # Not compiled: it is for single images, of which a compiler would want to know first.
        return None if self.amp_dtype is None else replace(self, amp_dtype=None, is_compiled=False)

    @torch.no_grad()
    def __call__(self, pixels: UInt8[Tensor, "b h w 3"]) -> list[Float[Tensor, "b l d"]]:
        """One plane for each tap, in ascending depth, on the backbone's device.

        Raises:
            UsageError: the model's planes are not what its parts promised.
            ResourceError: the forward cannot be compiled here.
        """
        # no_grad, not inference_mode: a side network may train on live planes.
        forward: Any = self._compiled or self.model.forward_intermediates
        has_prefix = bool(getattr(self.model, "num_prefix_tokens", 0))
        with casting(self.device, self.amp_dtype), compiling(is_compiled=self.is_compiled):
            found = forward(
                self.normalise(pixels),
                indices=list(self.spec.taps),
                norm=False,
                output_fmt="NLC",
                intermediates_only=True,
                stop_early=True,
                return_prefix_tokens=has_prefix,
            )
        planes = [torch.cat([one[1], one[0]], dim=1) if has_prefix else one for one in found]
        planes = [self.pool(plane) for plane in planes]
        for plane in planes:
            if tuple(plane.shape[1:]) != self.spec.shape[1:]:
                what = (
                    f"{self.name} gives planes {tuple(plane.shape[1:])}, not {self.spec.shape[1:]}"
                )
                raise UsageError("--model", what, "choose another model")
        return planes

    def normalise(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels as the weights expect them, on the backbone's device."""
        return self._scaling(pixels)
