"""From a name on the command line to a frozen backbone: aliases, checks, and the one protocol."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol, runtime_checkable

import timm
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from losa.device import Compute
from losa.errors import MismatchError, UsageError
from losa.extract.known import ALIASES, usual_size
from losa.extract.sampling import ClipSampling
from losa.extract.tokens import parse_frame_tokens, parse_tokens
from losa.extract.transforms import Preprocessing, preprocessing_of
from losa.extract.video.building import build_vivit
from losa.extract.video.framewise import FrameBackbone, clip_grid
from losa.extract.vit import ViTBackbone, anatomy_of
from losa.extract.vivitshapes import is_video_model, usual_clip, video_shape
from losa.extract.weights import build_with_weights
from losa.features import FeatureSpec, StoreDtype, resolve_taps
from losa.store.plan import differing_fields

_NAME: Final = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackboneRequest:
    """What was asked for, as it stands on the command line.

    ``clip`` says which frames of a clip are seen, and ``frames`` alone that they are spread over
    it as is usual. With either a backbone for images sees a clip frame by frame; one for clips
    needs neither.
    """

    model: str
    weights: str | None = None
    img_size: int | None = None
    taps: str = "auto"
    tokens: str = "all"
    dtype: StoreDtype = "float16"
    compiled: bool = False
    frames: int | None = None
    clip: ClipSampling | None = None

    @property
    def sampling(self) -> ClipSampling | None:
        """Which frames of a clip are seen; ``None`` where images are."""
        usual = usual_clip(self.model)
        if self.clip is not None or (self.frames is None and usual is None):
            return self.clip
        frames, stride = usual or (None, None)
        return ClipSampling(self.frames or frames or 1, stride)


@runtime_checkable
class Backbone(Protocol):
    """A frozen network that gives one plane for each tap; ``spec`` says what they look like."""

    @property
    def spec(self) -> FeatureSpec:
        """Taps, tokens and channels after the token policy, and the dtype asked for."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What an image or clip goes through before it comes here as pixels."""

    @property
    def name(self) -> str:
        """The timm name with its tag, or that of a video backbone with its options."""

    @property
    def weights_digest(self) -> str:
        """Sha256 of the loaded tensors, before any change of the image size."""

    @property
    def depth(self) -> int:
        """Blocks, which are the taps there are."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def with_taps(self, taps: tuple[int, ...]) -> Backbone:
        """The same network read at other taps; its weights are shared."""

    def in_float32(self) -> Backbone | None:
        """The same network without autocast; ``None`` where it computes so already."""

    def __call__(self, pixels: UInt8[Tensor, "b ... h w 3"]) -> list[Float[Tensor, "b l d"]]:
        """One plane for each tap, in ascending depth, of images or of clips."""


def build_backbone(
    request: BackboneRequest, *, device: torch.device, amp_dtype: torch.dtype | None
) -> Backbone:
    """Build a frozen backbone; mistakes in the request show before any weights are read.

    Raises:
        UsageError: the model, image size, taps or tokens cannot be meant.
        InputError: the weights are not this model's.
        ResourceError: the weights are not here and cannot be fetched.
    """
    if is_video_model(request.model):
        return build_vivit(request, device=device, amp_dtype=amp_dtype)
    name = model_name(request.model)
    config = asdict(timm.models.resolve_pretrained_cfg(name))
    with torch.device("meta"):
        anatomy = anatomy_of(timm.create_model(name, num_classes=0), name)
    img_size = _img_size(request.img_size, name, config)
    frame, clip = anatomy.grid(img_size), request.sampling
    kept, pool = parse_tokens(request.tokens, frame)
    if clip is not None:
        whole = clip_grid(frame, clip.frames)
        (kept, pool), (grid, over_time) = parse_frame_tokens(request.tokens, frame, whole)
    taps = resolve_taps(request.taps, tuple(range(anatomy.depth)))
    model, digest = build_with_weights(name, request.weights)
    _resize(model, name, img_size)
    log.info("%s: weights %s, %d x %d pixels", name, digest[:12], *img_size)
    backbone = ViTBackbone(
        model=model,
        name=name,
        weights_digest=digest,
        preprocessing=preprocessing_of(config, img_size),
        spec=FeatureSpec(name, taps, kept, anatomy.channels, request.dtype),
        pool=pool,
        device=device,
        amp_dtype=amp_dtype,
        is_compiled=request.compiled,
    )
    if clip is None:
        return backbone
    preprocessing = replace(backbone.preprocessing, clip=clip)
    return FrameBackbone(backbone, replace(backbone.spec, grid=grid), preprocessing, over_time)


@runtime_checkable
class Recorded(Protocol):
    """What a store's plan or a run's card says of the backbone its features come from."""

    @property
    def spec(self) -> FeatureSpec:
        """Taps, tokens and channels."""

    @property
    def backbone(self) -> Mapping[str, Any]:
        """Model, digest of the weights, and token policy."""

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """What images went through."""


def rebuild_backbone(
    recorded: Recorded, weights: str | None, compute: Compute, *, whose: str
) -> Backbone:
    """Build the backbone again that features came from; ``whose`` they are stands in messages.

    Raises:
        MismatchError: weights or preprocessing are others; the field is named.
        LosaError: as :func:`build_backbone`.
    """
    height, width = recorded.preprocessing["img_size"]
    assert height == width
    spec, clip = recorded.spec, recorded.preprocessing.get("clip")
    request = BackboneRequest(
        model=recorded.backbone["model"],
        weights=weights,
        img_size=height,
        taps=",".join(str(tap) for tap in spec.taps),
        tokens=recorded.backbone["tokens"],
        dtype=spec.dtype,
        clip=None if clip is None else ClipSampling.from_json(clip),
    )
    backbone = build_backbone(request, device=compute.device, amp_dtype=compute.amp)
    found = {
        "weights": backbone.weights_digest,
        "preprocessing": backbone.preprocessing.to_json(),
    }
    wanted = {
        "weights": recorded.backbone["weights"],
        "preprocessing": dict(recorded.preprocessing),
    }
    fields = list(differing_fields(found, wanted))
    if fields:
        raise MismatchError(
            "--weights",
            f"the backbone is not the {whose}'s (here / {whose}): " + ", ".join(fields),
            "give the weights that the store was extracted with",
        )
    return backbone


def model_name(text: str) -> str:
    """The timm name, with its tag, that an alias or a timm name stands for.

    Of a video backbone it is the alias, with the options that are not the usual ones.

    Raises:
        UsageError: timm has no such model; the message names the closest.

    Example:
        >>> model_name("vit_b")
        'vit_base_patch16_224.orig_in21k'
    """
    if is_video_model(text):
        return video_shape(text).name
    name = ALIASES.get(text, text)
    if not _NAME.fullmatch(name) or not timm.is_model(name):
        near = difflib.get_close_matches(text, [*ALIASES, *timm.list_models()], n=3, cutoff=0.0)
        what = f"{text!r} is not a model"
        raise UsageError("--model", what, f"did you mean {', '.join(near)}? see losa models")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        stem = name.partition(".")[0]
        near = difflib.get_close_matches(name, timm.list_pretrained(f"{stem}.*"), n=3, cutoff=0.0)
        what = f"{stem} has no weights {name.partition('.')[2]!r}"
        raise UsageError("--model", what, f"use {', '.join(near) or stem}") from None
    tag = config.tag if config is not None else None
    return f"{name.partition('.')[0]}.{tag}" if tag else name


def _img_size(asked: int | None, name: str, config: Mapping[str, Any]) -> tuple[int, int]:
    """The image size asked for, else the weights' own; 224 for DINOv2."""
    height, width = config["input_size"][-2:]
    return (asked, asked) if asked is not None else usual_size(name, (height, width))


def _resize(model: nn.Module, name: str, img_size: tuple[int, int]) -> None:
    """Interpolate a model's positions to an image size, as timm does."""
    parts: Any = model
    if tuple(parts.patch_embed.img_size or img_size) == img_size:
        return
    if not hasattr(model, "set_input_size"):
        own = "x".join(str(side) for side in parts.patch_embed.img_size)
        what = f"{name} works at {own} pixels only"
        raise UsageError("--img-size", what, "leave --img-size away")
    parts.set_input_size(img_size=img_size)
