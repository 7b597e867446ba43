"""Models of timm that tests build again and again: most of a small extraction's time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
import torch
from torch import nn

from losa.extract import weights

DRAW = weights._random_model


@contextmanager
def models_drawn_once() -> Iterator[None]:
    """Random weights are drawn, and a model without memory is built, once for each name."""
    drawn: dict[str, nn.Module] = {}
    outlines: dict[str, nn.Module] = {}
    create = timm.create_model

    def draw(name: str) -> nn.Module:
        if name in drawn:
            weights.warn_of_random(name)
        else:
            drawn[name] = DRAW(name)
        return copy.deepcopy(drawn[name])

    def outline(name: str, **options: Any) -> nn.Module:
        if not torch.empty(0).is_meta:
            return create(name, **options)
        key = f"{name} {sorted(options.items())}"
        if key not in outlines:
            outlines[key] = create(name, **options)
        return copy.deepcopy(outlines[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_random_model", draw)
        patch.setattr(timm, "create_model", outline)
        yield
