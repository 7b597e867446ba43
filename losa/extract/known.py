"""What needs neither torch nor data: the anatomy of known backbones, the size of known data sets.

Bytes and FLOPs follow from these numbers, so a bill can be written before anything is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from losa.errors import UsageError
from losa.extract.vivitshapes import SHAPES, VideoShape, block_flops
from losa.extract.windows import kept_grid
from losa.features import FeatureSpec, StoreDtype, TokenGrid, resolve_taps

DINOV2_SIZE: Final = 224
"""DINOv2's weights are 518 px: five times the tokens that anybody wants by default."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What a plain vision transformer's planes will look like, known without its weights."""

    depth: int
    channels: int
    prefix: int
    patch_size: tuple[int, int]

    def grid(self, img_size: tuple[int, int]) -> TokenGrid:
        """Token grid at an image size.

        Raises:
            UsageError: the size is not a multiple of the patch size.

        Example:
            >>> anatomy = Anatomy(depth=12, channels=384, prefix=1, patch_size=(14, 14))
            >>> anatomy.grid((224, 224)).num_tokens
            257
        """
        for side, patch in zip(img_size, self.patch_size, strict=True):
            if side % patch:
                lower = side - side % patch
                todo = f"use {lower} or {lower + patch}" if lower else f"use {patch}"
                what = f"{side} is not a multiple of the patch size {patch}"
                raise UsageError("--img-size", what, todo)
        height, width = (n // patch for n, patch in zip(img_size, self.patch_size, strict=True))
        return TokenGrid(height, width, prefix=self.prefix)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One line of ``losa models``; the image size is losa's default.

    ``frames`` are those of a video backbone's clips, 1 of one that sees images. ``mlp`` is the
    width of an MLP of two matrices with as many weights, which is a plain one's own: of a gated one
    (SwiGLU) one and a half times its width.
    """

    alias: str
    name: str
    depth: int
    channels: int
    img_size: int
    parameters: int
    patch: int
    mlp: int
    frames: int = 1


# Written down so that listing and pricing build nothing; tests hold every number against timm.
_KNOWN: Final = (
    KnownModel("vit_s", "vit_small_patch16_224.augreg_in21k", 12, 384, 224, 21_665_664, 16, 1536),
    KnownModel("vit_b", "vit_base_patch16_224.orig_in21k", 12, 768, 224, 85_798_656, 16, 3072),
    KnownModel("vit_l", "vit_large_patch16_224.augreg_in21k", 24, 1024, 224, 303_301_632, 16, 4096),
    KnownModel("vit_h", "vit_huge_patch14_clip_224.laion2b", 32, 1280, 224, 630_766_080, 14, 5120),
    KnownModel(
        "vit_g", "vit_giant_patch14_clip_224.laion2b", 40, 1408, 224, 1_011_203_840, 14, 6144
    ),
    KnownModel(
        *("vit_gigantic", "vit_gigantic_patch14_clip_224.laion2b"),
        *(48, 1664, 224, 1_842_777_344, 14, 8192),
    ),
    KnownModel("dinov2_s", "vit_small_patch14_dinov2.lvd142m", 12, 384, 224, 22_056_192, 14, 1536),
    KnownModel("dinov2_b", "vit_base_patch14_dinov2.lvd142m", 12, 768, 224, 86_579_712, 14, 3072),
    KnownModel(
        "dinov2_l", "vit_large_patch14_dinov2.lvd142m", 24, 1024, 224, 304_367_616, 14, 4096
    ),
    KnownModel(
        "dinov2_g", "vit_giant_patch14_dinov2.lvd142m", 40, 1536, 224, 1_136_479_232, 14, 6144
    ),
)

_VIDEO: Final = tuple(
    KnownModel(
        *(one.alias, one.alias, one.blocks, one.width, one.img_size, one.parameters),
        *(one.patch, one.mlp, one.frames),
    )
    for one in SHAPES
)

ALIASES: Final[Mapping[str, str]] = {model.alias: model.name for model in _KNOWN}
"""Short names for ``--model``, and the timm name each stands for."""


def known_models() -> tuple[KnownModel, ...]:
    """The aliases and what they stand for; any plain vision transformer of timm works as well."""
    return _KNOWN + _VIDEO


def usual_size(name: str, native: tuple[int, int]) -> tuple[int, int]:
    """Image size of a backbone whose weights are of size ``native``, unless another is asked for.

    Example:
        >>> usual_size("vit_small_patch14_dinov2.lvd142m", (518, 518))
        (224, 224)
    """
    return (DINOV2_SIZE, DINOV2_SIZE) if "dinov2" in name else native


@dataclass(frozen=True, slots=True)
class Setting:
    """What is kept of the features, as it stands on the command line."""

    taps: str
    tokens: str
    dtype: StoreDtype


@dataclass(frozen=True, slots=True)
class Profile:
    """A backbone at an image size, as far as bytes and FLOPs go.

    With ``frames`` it is one of clips: of a ``video`` shape, else an image transformer that sees
    every frame by itself.
    """

    name: str
    anatomy: Anatomy
    mlp: int
    parameters: int
    img_size: tuple[int, int]
    frames: int | None = None
    video: VideoShape | None = None

    @property
    def grid(self) -> TokenGrid:
        """Token grid of a sample, an image or a clip.

        Raises:
            UsageError: image size or frames are no multiple of the patch's or tubelet's.
        """
        if self.video is not None:
            return self.video.grid(self.img_size, self.frames or self.video.frames)
        frame = self.anatomy.grid(self.img_size)
        if self.frames is None:
            return frame
        prefix = self.frames * frame.prefix
        return replace(frame, time=self.frames, prefix=prefix, is_prefix_per_step=True)

    def spec(self, setting: Setting) -> FeatureSpec:
        """The features that a setting keeps.

        Raises:
            UsageError: the image size, frames, taps, tokens or dtype cannot be meant.
        """
        grid, _ = kept_grid(setting.tokens, self.grid)
        taps = resolve_taps(setting.taps, tuple(range(self.anatomy.depth)))
        return FeatureSpec(self.name, taps, grid, self.anatomy.channels, setting.dtype)

    def flops(self, blocks: int) -> int:
        """FLOPs of one image or clip through the first blocks: those of the blocks alone.

        Source: :func:`losa.extract.vivitshapes.block_flops`, of all tokens of an image, of each
        frame by itself, or as :meth:`losa.extract.vivitshapes.VideoShape.flops` has it.
        """
        if self.video is not None:
            return self.video.flops(self.grid, blocks)
        tokens = self.anatomy.grid(self.img_size).num_tokens
        each = block_flops(tokens, self.anatomy.channels, self.mlp)
        return (self.frames or 1) * blocks * each


@dataclass(frozen=True, slots=True)
class KnownSize:
    """Samples of a data set's splits, as published; ``source`` says where."""

    splits: Mapping[str, int]
    source: str


_SIZES: Final[Mapping[str, KnownSize]] = {
    "inat2018": KnownSize({"train": 437_513, "val": 24_426}, "its competition's page of 2018"),
    "inat2019": KnownSize(
        {"train": 265_213, "val": 3_030}, "its competition's page of 2019: 268,243 together"
    ),
    "inat2021": KnownSize(
        {"train": 2_686_843, "val": 100_000}, "its competition's page of 2021, the full train set"
    ),
    "k400": KnownSize(
        {"train": 240_436, "val": 19_796},
        "the copy of MMAction2's model zoo; others have fewer, for videos vanish",
    ),
    "k600": KnownSize(
        {"train": 392_000, "val": 30_000}, "thousands as its users count them; videos vanish"
    ),
    "ssv2": KnownSize({"train": 168_913, "val": 24_777}, "its page; the test set is not labelled"),
    "ucf101": KnownSize({"train": 9_537, "test": 3_783}, "split 1 of the lists on its page"),
    "hmdb51": KnownSize({"train": 3_570, "test": 1_530}, "split 1 of the lists on its page"),
}
_VTAB: Final = KnownSize({"train": 800, "val": 200}, "VTAB-1k's lists; its test sets not priced")
_VTAB_FINAL: Final = KnownSize({"train": 1000}, _VTAB.source)


def known_size(dataset: str) -> KnownSize | None:
    """The published size of a data set, for a bill before it is there.

    Example:
        >>> known_size("inat2018").splits["train"], known_size("folder:photos")
        (437513, None)
    """
    if dataset.startswith("vtab/"):
        return _VTAB_FINAL if dataset.endswith(":1000") else _VTAB
    return _SIZES.get(dataset)
