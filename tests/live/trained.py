"""A small trained run for tests of the live layer: pictures, store, adaptor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from losa.adapt.train import adapt
from losa.config import AdaptConfig
from losa.extract.run import extract
from losa.features import StoreDtype
from tests.extract.picture_folder import picture_folder, tiny_config


@dataclass(frozen=True)
class Trained:
    """Where everything lies."""

    pictures: Path
    store: Path
    run: Path


def train_small(root: Path, dtype: StoreDtype = "float16", amp_dtype: str = "none") -> Trained:
    """Extract three colours with a random ViT-Ti and train LoSA on them for a few epochs."""
    found = Trained(root / "pictures", root / "s.zarr", root / "run")
    picture_folder(found.pictures, {"train": 8, "val": 3, "test": 3})
    extract(tiny_config(found.pictures, found.store, store_dtype=dtype, amp_dtype=amp_dtype))
    adapt(AdaptConfig(store=found.store, out=found.run, rank=2, epochs=4, batch_size=8))
    return found
