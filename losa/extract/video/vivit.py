"""ViViT as a network: tubelets, timm's blocks, joint over space and time or factorised.

Source: Arnab et al., "ViViT: A Video Vision Transformer", 2021, models 1 and 2; norms, GELU and
biases as in transformers' ``VivitModel``, with which it shares its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch
from jaxtyping import Float
from timm.layers import GELUTanh
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from losa.extract.vivitshapes import VideoShape

LN_EPS: Final = 1e-6
INIT_STD: Final = 0.02


class Tubelets(nn.Module):
    """Parts a clip into tubelets of frames and patches, and embeds each of them."""

    def __init__(self, shape: VideoShape) -> None:
        super().__init__()
        sides = (shape.tubelet, shape.patch, shape.patch)
        self.proj = nn.Conv3d(3, shape.width, kernel_size=sides, stride=sides)

    def forward(
        self, clips: Float[Tensor, "b 3 t h w"], looked_at: slice
    ) -> Float[Tensor, "b d ..."]:
        """Embedded tubelets ``[b d t h w]`` of clips that hold the frames looked at, no others."""
        kernel = self.proj.weight[:, :, looked_at]
        sides = kernel.shape[2:]
        return nn.functional.conv3d(clips, kernel, self.proj.bias, stride=tuple(sides))


class VideoTransformer(nn.Module):
    """ViViT without a classifier; its names of tensors are timm's, where timm has them.

    Args:
        shape: its sizes. ``frames`` and ``img_size`` are those that its positions are made for.
    """

    def __init__(self, shape: VideoShape) -> None:
        super().__init__()
        self.shape = shape
        grid = shape.grid((shape.img_size, shape.img_size), shape.frames)
        self.patch_embed = Tubelets(shape)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        tokens = 1 + (grid.num_patches if shape.temporal is None else grid.positions)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, shape.width))
        self.blocks = nn.ModuleList(_block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=LN_EPS)
        if shape.temporal:
            self.time_cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
            self.time_pos_embed = nn.Parameter(torch.zeros(1, 1 + grid.time, shape.width))
            self.time_blocks = nn.ModuleList(_block(shape) for _ in range(shape.temporal))
            self.time_norm = nn.LayerNorm(shape.width, eps=LN_EPS)

    def initialise(self) -> None:
        """Seeded by the caller: normal weights, no biases, norms that change nothing."""
        for name, parameter in self.named_parameters():
            if "norm" in name:
                nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=INIT_STD)

    def forward(
        self, clips: Float[Tensor, "b 3 t h w"], taps: Sequence[int], looked_at: slice
    ) -> list[Tensor]:
        """Planes ``[b l d]`` that the blocks ``taps`` leave; the blocks above them do not run.

        Planes are those of the residual stream, class tokens first. Those of blocks over time hold
        the class tokens of the steps as these blocks leave them, and the patches as the last block
        over space left them; the class token of the clip, which only these blocks have, is not in.

        Args:
            clips: normalised pixels of the frames that are looked at.
            taps: numbers of blocks, ascending; those over time count on behind those over space.
            looked_at: frames of each tubelet that ``clips`` holds.
        """
        volume = self.patch_embed(clips, looked_at)
        if self.shape.temporal is None:
            return self._joint(volume.flatten(2).mT, taps)
        return self._factorised(volume.flatten(3).permute(0, 2, 3, 1), taps)

    def _joint(self, patches: Float[Tensor, "b l d"], taps: Sequence[int]) -> list[Tensor]:
        """Every token sees every other."""
        cls_token = self.cls_token.expand(len(patches), -1, -1)
        tokens = torch.cat([cls_token, patches], dim=1) + self.pos_embed
        planes = []
        for number, block in enumerate(self.blocks[: taps[-1] + 1]):
            tokens = block(tokens)
            planes += [tokens] if number in taps else []
        return planes

    def _factorised(self, patches: Float[Tensor, "b t s d"], taps: Sequence[int]) -> list[Tensor]:
        """Every token sees those of its time step; then class tokens see each other."""
        b, t, _, _ = patches.shape
        cls_token = self.cls_token.expand(b * t, -1, -1)
        tokens = torch.cat([cls_token, patches.flatten(0, 1)], dim=1) + self.pos_embed
        planes = []
        for number, block in enumerate(self.blocks[: taps[-1] + 1]):
            tokens = block(tokens)
            planes += [_by_clip(tokens, t)] if number in taps else []
        if taps[-1] < len(self.blocks):
            return planes
        own = _by_clip(tokens, t)[:, t:]
        tokens = self._over_time(torch.unflatten(self.norm(tokens)[:, 0], 0, (b, t)))
        for number, block in enumerate(self.time_blocks, start=len(self.blocks)):
            if number > taps[-1]:
                break
            tokens = block(tokens)
            plane = [tokens[:, 1:].to(own.dtype), own]
            planes += [torch.cat(plane, dim=1)] if number in taps else []
        return planes

    def _over_time(self, summary: Float[Tensor, "b t d"]) -> Tensor:
        """Class tokens of the steps, normed, behind that of the clip, with positions in time."""
        cls_token = self.time_cls_token.expand(len(summary), -1, -1)
        return torch.cat([cls_token, summary], dim=1) + self.time_pos_embed


def _by_clip(tokens: Float[Tensor, "n l d"], t: int) -> Float[Tensor, "b ... d"]:
    """Planes of clips from those of their time steps: class tokens of all steps, then patches."""
    steps = torch.unflatten(tokens, 0, (-1, t))
    return torch.cat([steps[:, :, 0], steps[:, :, 1:].flatten(1, 2)], dim=1)


def resized(model: VideoTransformer, img_size: tuple[int, int], frames: int) -> None:
    """Interpolate a model's positions: bicubic over rows and columns, linear over time steps.

    What is of the right size stays as it is.
    """
    shape = model.shape
    old = shape.grid((shape.img_size, shape.img_size), shape.frames)
    new = shape.grid(img_size, frames)
    steps = (1, 1) if shape.temporal is not None else (old.time, new.time)
    sides = (old.height, old.width), (new.height, new.width)
    model.pos_embed = nn.Parameter(_interpolated(model.pos_embed.detach(), steps, sides))
    if shape.temporal:
        one = (1, 1), (1, 1)
        times = _interpolated(model.time_pos_embed.detach(), (old.time, new.time), one)
        model.time_pos_embed = nn.Parameter(times)


def _interpolated(
    positions: Tensor, steps: tuple[int, int], sides: tuple[tuple[int, int], tuple[int, int]]
) -> Tensor:
    """Positions behind a class token's, from one box of tokens to another."""
    own = positions[:, :1]
    box = torch.unflatten(positions[:, 1:], 1, (steps[0], *sides[0]))
    if sides[0] != sides[1]:
        planes = box.flatten(0, 1).permute(0, 3, 1, 2)
        planes = nn.functional.interpolate(
            planes, size=sides[1], mode="bicubic", antialias=True, align_corners=False
        )
        box = torch.unflatten(planes.permute(0, 2, 3, 1), 0, (1, steps[0]))
    if steps[0] != steps[1]:
        lines = box.flatten(2).mT
        lines = nn.functional.interpolate(lines, size=steps[1], mode="linear", align_corners=False)
        box = torch.unflatten(lines.mT, 2, (*sides[1], -1))
    return torch.cat([own, box.flatten(1, 3)], dim=1)


def _block(shape: VideoShape) -> nn.Module:
    """A pre-norm block with the norms, biases and GELU of transformers' ViViT."""
    make: Any = Block
    block: nn.Module = make(
        shape.width,
        shape.heads,
        mlp_ratio=shape.mlp / shape.width,
        qkv_bias=True,
        act_layer=GELUTanh,
        norm_layer=partial(nn.LayerNorm, eps=LN_EPS),
    )
    return block
