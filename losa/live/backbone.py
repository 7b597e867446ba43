"""The backbone a run was trained on, rebuilt, and refused when it is not the same."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from losa.adapt.adaptor import Adaptor
from losa.adapt.checkpoint import load_adaptor
from losa.device import resolve_compute
from losa.extract.backbones import rebuild_backbone
from losa.extract.extraction import MAX_AUTO_WORKERS
from losa.extract.nonfinite import AsStored
from losa.extract.transforms import Preprocessing

log = logging.getLogger(__name__)

Workers = int | Literal["auto"]


def decode_workers(asked: Workers, batches: int) -> int:
    """Decode processes: as extraction has them, but none is started for a single batch.

    Example:
        >>> decode_workers(3, 1), decode_workers("auto", 1)
        (3, 0)
    """
    if asked != "auto":
        return asked
    if batches <= 1:
        return 0
    return max(1, min(MAX_AUTO_WORKERS, batches, len(os.sched_getaffinity(0)) // 2))


class LivePipeline:
    """Pixels in, logits out: backbone, the store's dtype, and the run's adaptor.

    The backbone runs under the autocast that the store was extracted with, its planes pass through
    the store's dtype, and the adaptor runs in float32, so that it sees what it was trained on: what
    is left between cached and live logits is the arithmetic of another device or batch shape.

    Raises:
        MismatchError: weights or preprocessing are not those of the run; the field is named.
        StoreError: the run is missing or damaged.
        ResourceError: the device is not here.
    """

    def __init__(self, run_dir: Path, weights: str | None, device: str = "auto") -> None:
        adaptor, self.card = load_adaptor(run_dir)
        store = self.card.numerics
        self.compute = resolve_compute(device, store["autocast"] or "none")
        if self.compute.device.type != store["device"]:
            log.info("the store was made on %s: last bits may differ", store["device"])
        self.adaptor: Adaptor = adaptor.to(self.compute.device)
        self.backbone = rebuild_backbone(self.card, weights, self.compute, whose="run")
        quantiser = np.array(self.card.quantiser, np.float32) if self.card.quantiser else None
        given = self.card.spec.dtype, self.card.exponents, quantiser
        self._planes = AsStored(self.backbone, *given)

    @property
    def preprocessing(self) -> Preprocessing:
        """How the run's pixels are made."""
        return self.backbone.preprocessing

    @torch.inference_mode()
    def logits(self, pixels: UInt8[np.ndarray, "b ... h w 3"]) -> Float[Tensor, "b y"]:
        """Logits of a batch of images or clips, on the CPU; nan where features do not fit a store.

        Those are the images that extraction refuses or skips: of others of their kind the adaptor
        has never seen one.
        """
        planes, fits = self._planes(torch.from_numpy(pixels).to(self.compute.device))
        result: Tensor = self.adaptor(planes)
        result = result.cpu()
        result[torch.from_numpy(~fits.all(0))] = torch.nan
        return result
