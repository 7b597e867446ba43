"""ViViT, frozen, read at its taps: the ``Backbone`` of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from losa.errors import UsageError
from losa.extract.frozen import Scaling, casting, compiling
from losa.extract.tokens import Pooling
from losa.extract.transforms import Preprocessing
from losa.extract.video.vivit import VideoTransformer
from losa.features import FeatureSpec


@dataclass(frozen=True, eq=False)
class ViViTBackbone:
    """A frozen ViViT that turns 8-bit clips into one plane for each tap.

    ``looked_at`` are the frames of each tubelet that pixels hold. Where the kernel's others are
    zero, as after central-frame inflation, they need not be there: the preprocessing says so.
    """

    model: VideoTransformer
    name: str
    weights_digest: str
    preprocessing: Preprocessing
    spec: FeatureSpec
    pool: Pooling
    device: torch.device
    amp_dtype: torch.dtype | None
    looked_at: slice
    is_compiled: bool = False
    _scaling: Scaling = field(init=False)
    _forward: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        self.model.requires_grad_(requires_grad=False).eval().to(self.device)
        object.__setattr__(self, "_scaling", Scaling.on(self.device, self.preprocessing))
        compiled = torch.compile(self.model, dynamic=False) if self.is_compiled else self.model
        object.__setattr__(self, "_forward", compiled)

    @property
    def depth(self) -> int:
        """Blocks over space and over time, which are the taps there are."""
        return self.model.shape.blocks

    def with_taps(self, taps: tuple[int, ...]) -> ViViTBackbone:
        """The same network read at other taps; its weights are shared."""
        return replace(self, spec=self.spec.with_taps(taps))

    def in_float32(self) -> ViViTBackbone | None:
        """The same network without autocast; ``None`` where there is none."""
        return None if self.amp_dtype is None else replace(self, amp_dtype=None, is_compiled=False)

    @torch.no_grad()
    def __call__(self, pixels: UInt8[Tensor, "b t h w 3"]) -> list[Float[Tensor, "b l d"]]:
        """One plane for each tap, in ascending depth, on the backbone's device.

        Raises:
            UsageError: the clips are of another shape than the backbone's.
            ResourceError: the forward cannot be compiled here.
        """
        clip = self.preprocessing.clip
        assert clip is not None
        wanted = (clip.kept, *self.preprocessing.img_size)
        if tuple(pixels.shape[1:4]) != wanted:
            what = f"{self.name} was given clips {tuple(pixels.shape[1:4])}, not {wanted}"
            raise UsageError("--frames", what, "give the frames and sizes that it asks for")
        with casting(self.device, self.amp_dtype), compiling(is_compiled=self.is_compiled):
            found: Sequence[Tensor] = self._forward(
                self.normalise(pixels), self.spec.taps, self.looked_at
            )
        return [self.pool(plane) for plane in found]

    def normalise(self, pixels: UInt8[Tensor, "b t h w 3"]) -> Float[Tensor, "b 3 t h w"]:
        """Pixels as the weights expect them, on the backbone's device."""
        return self._scaling(pixels)
