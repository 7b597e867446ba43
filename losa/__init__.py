"""LoSA: low-rank side adaptation of frozen vision backbones, over cached multi-layer features.

The public names load on first use, so that ``import losa`` and ``losa --help`` stay instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from losa.version import __version__

if TYPE_CHECKING:
    from losa.adapt.adaptor import LoSA
    from losa.adapt.checkpoint import load_adaptor as load
    from losa.adapt.options import SideOptions
    from losa.features import FeatureSpec, TokenGrid
    from losa.store import open_store

__all__ = [
    "FeatureSpec",
    "LoSA",
    "SideOptions",
    "TokenGrid",
    "__version__",
    "load",
    "open_store",
]

_HOMES = {
    "FeatureSpec": ("losa.features", "FeatureSpec"),
    "LoSA": ("losa.adapt.adaptor", "LoSA"),
    "SideOptions": ("losa.adapt.options", "SideOptions"),
    "TokenGrid": ("losa.features", "TokenGrid"),
    "load": ("losa.adapt.checkpoint", "load_adaptor"),
    "open_store": ("losa.store", "open_store"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'losa' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
