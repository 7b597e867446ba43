"""Names and sizes of ViViT: what its planes, parameters and FLOPs follow from, without torch.

ViViT (Arnab et al., "ViViT: A Video Vision Transformer", 2021) makes one token of a tubelet, some
frames of a patch, and has two forms here. With joint attention every token sees every other. The
factorised encoder runs an image transformer over each time step, and a second one over the class
tokens of the steps.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from losa.errors import UsageError
from losa.features import TokenGrid, is_whole

Inflation = Literal["central", "average"]
INFLATIONS: Final[tuple[str, ...]] = get_args(Inflation)
FRAMES: Final = 32
STRIDE: Final = 2
IMG_SIZE: Final = 224
FACTORISED: Final = "_fe"
MOST_BLOCKS: Final = 1024


@dataclass(frozen=True, slots=True)
class VideoShape:
    """Everything that a ViViT is, but its weights.

    Args:
        alias: its short name.
        patch: side of a tubelet in pixels.
        width: channels.
        depth: blocks of the transformer that sees patches.
        mlp: width of the MLPs.
        heads: attention heads.
        temporal: blocks over class tokens of the factorised encoder; ``None``: joint attention.
        tubelet: frames of a tubelet.
        inflate: how a patch kernel of images becomes one of tubelets: it stands at the central
            frame and the others are not looked at, or every frame has an equal share.
        frames: frames of a clip that the positions were made for.
        img_size: side of the frames that the positions were made for.
    """

    alias: str
    patch: int
    width: int
    depth: int
    mlp: int
    heads: int
    temporal: int | None = None
    tubelet: int = 2
    inflate: Inflation = "central"
    frames: int = FRAMES
    img_size: int = IMG_SIZE

    @property
    def blocks(self) -> int:
        """All blocks, which are the taps there are."""
        return self.depth + (self.temporal or 0)

    @property
    def steps(self) -> int:
        """Time steps that the positions were made for."""
        return self.frames // self.tubelet

    @property
    def name(self) -> str:
        """The alias, with every option that is not the usual one."""
        usual = known_shape(self.alias)
        changed = [
            f"{option}={getattr(self, option)}"
            for option in OPTIONS
            if getattr(self, option) != getattr(usual, option)
        ]
        return self.alias + (":" + ",".join(changed) if changed else "")

    @property
    def parameters(self) -> int:
        """Parameters without a classifier, positions as the weights have them, final norms too.

        Example:
            >>> [round(known_shape(name).parameters / 1e6) for name in ("vivit_b", "vivit_e")]
            [89, 3813]
        """
        d, steps, space = self.width, self.steps, (self.img_size // self.patch) ** 2
        block = 4 * d * d + 2 * d * self.mlp + 9 * d + self.mlp
        kernel = 3 * self.tubelet * self.patch**2 * d + d
        positions = (1 + space if self.temporal is not None else 1 + steps * space) * d
        norms = 2 * d
        if self.temporal:
            positions += (1 + steps) * d + d
            norms += 2 * d
        return self.blocks * block + kernel + d + positions + norms

    def grid(self, img_size: tuple[int, int], frames: int) -> TokenGrid:
        """Token grid of a clip.

        Joint attention has one class token for the clip, the factorised encoder one for each step.

        Raises:
            UsageError: frames or image size are no multiple of the tubelet's.

        Example:
            >>> known_shape("vivit_e").grid((224, 224), 32).num_tokens
            4097
            >>> known_shape("vivit_l_fe").grid((224, 224), 32).num_tokens
            3152
        """
        for flag, side, part in (
            ("--frames", frames, self.tubelet),
            ("--img-size", img_size[0], self.patch),
            ("--img-size", img_size[1], self.patch),
        ):
            if side % part:
                lower = side - side % part
                todo = f"use {lower} or {lower + part}" if lower else f"use {part}"
                raise UsageError(flag, f"{side} is not a multiple of the tubelet's {part}", todo)
        height, width = (side // self.patch for side in img_size)
        steps, is_joint = frames // self.tubelet, self.temporal is None
        prefix = 1 if is_joint else steps
        return TokenGrid(height, width, steps, prefix, is_prefix_per_step=not is_joint)

    def flops(self, grid: TokenGrid, blocks: int) -> int:
        """FLOPs of one clip through the first blocks: 2 a multiplication, no embedding.

        Joint attention is over all tokens at once; of the factorised encoder over the tokens of
        each step, and over a class token and one token a step in its blocks over time.
        """
        if self.temporal is None:
            return blocks * block_flops(grid.num_tokens, self.width, self.mlp)
        space = grid.time * block_flops(1 + grid.positions, self.width, self.mlp)
        time = block_flops(1 + grid.time, self.width, self.mlp)
        return min(blocks, self.depth) * space + max(0, blocks - self.depth) * time


def block_flops(tokens: int, width: int, mlp: int) -> int:
    """FLOPs of a block: n * (2 * (4 * d^2 + 2 * d * m) + 4 * n * d).

    Source: projections of attention and MLP, and attention itself, of n tokens, d channels and an
    MLP of width m.
    """
    return tokens * (2 * (4 * width**2 + 2 * width * mlp) + 4 * tokens * width)


_JOINT: Final = (
    VideoShape("vivit_b", 16, 768, 12, 3072, 12),
    VideoShape("vivit_l", 16, 1024, 24, 4096, 16),
    VideoShape("vivit_h", 14, 1280, 32, 5120, 16),
    VideoShape("vivit_g", 14, 1408, 40, 6144, 16),
    VideoShape("vivit_e", 14, 1792, 56, 15360, 16),
)
# B and L as their authors configured them; of the larger ones no factorised encoder was published.
_TEMPORAL: Final = {"vivit_b": 4, "vivit_l": 24, "vivit_h": 4, "vivit_g": 4, "vivit_e": 4}
SHAPES: Final[tuple[VideoShape, ...]] = tuple(
    one
    for shape in _JOINT
    for one in (
        shape,
        replace(shape, alias=shape.alias + FACTORISED, temporal=_TEMPORAL[shape.alias]),
    )
)
"""The video backbones that have an alias."""

OPTIONS: Final = ("depth", "temporal", "inflate")
"""What may stand behind an alias, as in ``vivit_e:depth=2,inflate=average``."""


def known_shape(alias: str) -> VideoShape:
    """The shape of an alias.

    Raises:
        KeyError: it has none.
    """
    return {shape.alias: shape for shape in SHAPES}[alias]


def is_video_model(model: str) -> bool:
    """Whether a name means a backbone that sees whole clips.

    Example:
        >>> is_video_model("vivit_e:depth=2"), is_video_model("vit_b")
        (True, False)
    """
    return model.partition(":")[0].startswith("vivit")


def usual_clip(model: str) -> tuple[int, int] | None:
    """Frames and stride that a video backbone's clips have; ``None`` of one for images.

    Example:
        >>> usual_clip("vivit_b"), usual_clip("dinov2_s")
        ((32, 2), None)
    """
    return (FRAMES, STRIDE) if is_video_model(model) else None


def video_shape(model: str) -> VideoShape:
    """The shape that a name with its options means.

    Raises:
        UsageError: the alias or an option is unknown, or a value is out of range.

    Example:
        >>> video_shape("vivit_e:depth=2").depth, video_shape("vivit_b_fe:temporal=0").blocks
        (2, 12)
    """
    alias, colon, options = model.partition(":")
    try:
        shape = known_shape(alias)
    except KeyError:
        near = difflib.get_close_matches(alias, [one.alias for one in SHAPES], n=3, cutoff=0.0)
        what = f"{alias[:60]!r} is not a model"
        todo = f"did you mean {', '.join(near)}? see losa models"
        raise UsageError("--model", what, todo) from None
    for option in options.split(",") if colon else ():
        shape = _with_option(shape, option)
    return shape


def _with_option(shape: VideoShape, text: str) -> VideoShape:
    """The shape with one option such as ``depth=2``."""
    option, _, value = text.partition("=")
    if option == "inflate" and value in INFLATIONS:
        return replace(shape, inflate="central" if value == "central" else "average")
    least = {"depth": 1, "temporal": 0}.get(option)
    is_factorised = shape.temporal is not None
    if least is not None and is_whole(value) and (option == "depth" or is_factorised):
        number = int(value)
        if least <= number <= MOST_BLOCKS:
            is_depth = option == "depth"
            return replace(shape, depth=number) if is_depth else replace(shape, temporal=number)
    what = f"{text[:60]!r} is no option of {shape.alias}"
    todo = "use depth=N, inflate=central or inflate=average"
    raise UsageError("--model", what, todo + (", or temporal=N" if is_factorised else ""))
