"""A backbone some of whose features are too much for the arithmetic it is run in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from losa.extract.vit import ViTBackbone

WHITE = "train/red/002.png"

FORWARD = ViTBackbone.__call__


def with_white(data: Path) -> Path:
    """A folder of pictures of which one of train becomes all white."""
    Image.new("RGB", (32, 32), (255, 255, 255)).save(data / WHITE)
    return data


def overflow(
    monkeypatch: pytest.MonkeyPatch, value: float, when: Callable[[ViTBackbone], bool]
) -> None:
    """At tap 11, one feature of white pictures becomes a value."""

    def forward(self: ViTBackbone, pixels: torch.Tensor) -> list[torch.Tensor]:
        planes = FORWARD(self, pixels)
        if 11 in self.spec.taps and when(self):
            planes[-1][pixels.flatten(1).amin(1) == 255, 1, 7] = value
        return planes

    monkeypatch.setattr(ViTBackbone, "__call__", forward)


def always(_: ViTBackbone) -> bool:
    return True


def in_autocast(backbone: ViTBackbone) -> bool:
    return backbone.amp_dtype is not None
