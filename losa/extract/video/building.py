"""From a request to a frozen ViViT; mistakes in it show before any weights are read."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Final, Protocol, runtime_checkable

import timm
import torch

from losa.extract.sampling import ClipSampling
from losa.extract.tokens import parse_tokens
from losa.extract.transforms import Preprocessing, preprocessing_of
from losa.extract.video.backbone import ViViTBackbone
from losa.extract.video.vivit import resized
from losa.extract.video.weights import OF_TIMM, frames_that_matter, vivit_with_weights
from losa.extract.vivitshapes import video_shape
from losa.features import FeatureSpec, StoreDtype, resolve_taps

_HALF: Final = (0.5, 0.5, 0.5)
CROP_PCT: Final = 0.875
"""The shorter side of a frame becomes 256 pixels for a crop of 224."""

log = logging.getLogger(__name__)


@runtime_checkable
class VideoRequest(Protocol):
    """What is asked for: those fields of a request for a backbone that ViViT knows."""

    @property
    def model(self) -> str:
        """Alias, perhaps with options."""

    @property
    def weights(self) -> str | None:
        """A file, ``timm:NAME``, or ``random``."""

    @property
    def img_size(self) -> int | None:
        """Side of the frames; ``None``: the weights' own."""

    @property
    def taps(self) -> str:
        """Which blocks are read."""

    @property
    def tokens(self) -> str:
        """The token policy."""

    @property
    def dtype(self) -> StoreDtype:
        """What the store will keep."""

    @property
    def compiled(self) -> bool:
        """Whether the forward is compiled."""

    @property
    def sampling(self) -> ClipSampling | None:
        """Which frames are seen."""


def build_vivit(
    request: VideoRequest, *, device: torch.device, amp_dtype: torch.dtype | None
) -> ViViTBackbone:
    """Build a frozen ViViT; its preprocessing is that of the published weights of ViViT-B.

    Raises:
        LosaError: as :func:`losa.extract.backbones.build_backbone`.
    """
    shape, clip = video_shape(request.model), request.sampling
    assert clip is not None
    side = shape.img_size if request.img_size is None else request.img_size
    grid, pool = parse_tokens(request.tokens, shape.grid((side, side), clip.frames))
    taps = resolve_taps(request.taps, tuple(range(shape.blocks)))
    model, digest = vivit_with_weights(shape, shape.name, request.weights)
    resized(model, (side, side), clip.frames)
    looked_at = frames_that_matter(model.patch_embed.proj.weight)
    every = shape.tubelet // (looked_at.stop - looked_at.start)
    clip = replace(clip, every=every, offset=looked_at.start)
    log.info(
        "%s: weights %s, %d of %d frames of %d x %d pixels",
        *(shape.name, digest[:12], clip.kept, clip.frames, side, side),
    )
    return ViViTBackbone(
        model=model,
        name=shape.name,
        weights_digest=digest,
        preprocessing=replace(_pixels_of(request.weights or "", side), clip=clip),
        spec=FeatureSpec(shape.name, taps, grid, shape.width, request.dtype),
        pool=pool,
        device=device,
        amp_dtype=amp_dtype,
        looked_at=looked_at,
        is_compiled=request.compiled,
    )


def _pixels_of(weights: str, side: int) -> Preprocessing:
    """What frames go through: what a ViT of the hub has seen, else what the published ViViT has."""
    if weights.startswith(OF_TIMM):
        config = timm.models.resolve_pretrained_cfg(weights.removeprefix(OF_TIMM))
        return preprocessing_of(asdict(config), (side, side))
    return Preprocessing((side, side), CROP_PCT, "center", "bilinear", _HALF, _HALF)
