"""How the weights want their pixels: size, crop, interpolation and normalisation, as plain values.

timm alone knows these for its weights; here they become a frozen record that decode workers can
receive without importing torch, and that a store's plan can keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from losa.errors import MismatchError, UsageError
from losa.extract.sampling import ClipSampling

DECODE_RULES: Final = 1
"""Version of what ``losa.extract.images`` does before resizing: a change changes every feature."""

INTERPOLATIONS: Final = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES: Final = ("center", "squash", "border")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Pixels as the weights expect them; ``mean`` and ``std`` apply to values in 0..1.

    ``clip`` says which frames of a video are seen; every one of them is treated as an image is.

    Example:
        >>> half = (0.5, 0.5, 0.5)
        >>> Preprocessing((224, 224), 0.875, "center", "bicubic", half, half).resize
        (256, 256)
    """

    img_size: tuple[int, int]
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    clip: ClipSampling | None = None

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS or self.crop_mode not in CROP_MODES:
            raise UsageError(
                "preprocessing",
                f"{self.interpolation!r} with crop mode {self.crop_mode!r} is not known",
                f"use one of {INTERPOLATIONS} and one of {CROP_MODES}",
            )
        if self.clip is not None and self.clip.crops > 1 and self.crop_mode != "center":
            what = f"{self.clip.crops} crops along a side that crop mode {self.crop_mode!r} leaves"
            raise UsageError("--crops", f"{what} none of", "leave --crops away")

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels of one sample: height, width and colours, or frames of a clip before them."""
        frames = () if self.clip is None else (self.clip.kept,)
        return (*frames, *self.img_size, 3)

    @property
    def resize(self) -> tuple[int, int]:
        """Height and width that an image is resized towards before the crop."""
        height, width = self.img_size
        return math.floor(height / self.crop_pct), math.floor(width / self.crop_pct)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of :meth:`from_json`."""
        clip = {} if self.clip is None else {"clip": self.clip.to_json()}
        return {
            "img_size": list(self.img_size),
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "decode_rules": DECODE_RULES,
            **clip,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessing:
        """Rebuild from :meth:`to_json`'s values.

        Raises:
            MismatchError: the values were written under other rules of decoding.
        """
        if value["decode_rules"] != DECODE_RULES:
            raise MismatchError(
                "preprocessing",
                f"images were decoded under rules {value['decode_rules']}, not {DECODE_RULES}",
                "use the losa that wrote it, or extract again",
            )
        height, width = value["img_size"]
        return cls(
            (height, width),
            value["crop_pct"],
            value["crop_mode"],
            value["interpolation"],
            _three(value["mean"]),
            _three(value["std"]),
            ClipSampling.from_json(value["clip"]) if "clip" in value else None,
        )


def preprocessing_of(source: Any, img_size: tuple[int, int]) -> Preprocessing:
    """Preprocessing that timm's own evaluation uses for a model, at another image size.

    Args:
        source: a timm model, or the mapping of its pretrained configuration.
        img_size: height and width that the backbone will see.
    """
    from timm.data.config import resolve_data_config

    config = source if isinstance(source, Mapping) else source.pretrained_cfg
    resolve: Any = resolve_data_config
    resolved = resolve({"input_size": (3, *img_size)}, pretrained_cfg=dict(config))
    return Preprocessing(
        img_size,
        float(resolved["crop_pct"]),
        resolved["crop_mode"],
        resolved["interpolation"],
        _three(resolved["mean"]),
        _three(resolved["std"]),
    )


def _three(values: Any) -> tuple[float, float, float]:
    """One float for each of the three colours."""
    red, green, blue = values
    return float(red), float(green), float(blue)
