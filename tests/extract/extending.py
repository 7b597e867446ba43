"""What tests of extensions share: a backbone that is built once, configurations, and a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from losa.config import ExtractConfig
from losa.extract.backbones import Backbone, BackboneRequest, build_backbone
from losa.extract.extraction import ExtractEvent
from losa.features import resolve_taps
from tests.extract.picture_folder import tiny_config


@cache
def whole_backbone(request: BackboneRequest, amp_dtype: torch.dtype | None) -> Backbone:
    return build_backbone(request, device=torch.device("cpu"), amp_dtype=amp_dtype)


def built_once(
    request: BackboneRequest, *, device: torch.device, amp_dtype: torch.dtype | None
) -> Backbone:
    """What :func:`build_backbone` gives, built once for all taps: most of a tiny extraction."""
    whole = whole_backbone(replace(request, taps="all"), amp_dtype)
    return whole.with_taps(resolve_taps(request.taps, whole.spec.taps))


KEPT = ("taps", "store_dtype", "tokens", "img_size", "split", "shard_rows", "seed")


def extending(data: Path, store: Path, **changes: Any) -> ExtractConfig:
    """Extension that says no more than it must."""
    given = tiny_config(data, store, extend=True).model_dump(exclude_unset=True)
    kept = (*KEPT, "calibration_rows")
    values = {name: value for name, value in given.items() if name not in kept}
    return ExtractConfig(**{**values, **changes})


class StopError(Exception):
    """Stands for a kill at a chosen moment."""


def stop_after(rows: int, phase: str) -> Callable[[ExtractEvent], None]:
    def tell(event: ExtractEvent) -> None:
        if event.phase == phase and event.done >= rows:
            raise StopError

    return tell
