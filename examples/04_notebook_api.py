"""The side network alone, for notebooks: a plain ``nn.Module`` on planes from anywhere.

Random planes whose class shows in their mean; nothing is read or written:

    python examples/04_notebook_api.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import losa

SPEC = losa.FeatureSpec("any_vit", (3, 7, 11), losa.TokenGrid(4, 4, prefix=1), channels=32)
CLASSES = 4


def planes_of(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Cached planes ``[k b l d]``: noise, and one channel per class that is a little brighter."""
    taps, tokens, channels = SPEC.shape
    planes = torch.randn(taps, len(labels), tokens, channels, generator=generator)
    planes[:, torch.arange(len(labels)), :, labels] += 1.0
    return planes


def main() -> None:
    """Train for a hundred steps, test, and compare cached with live planes."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = losa.LoSA(SPEC, rank=4, num_classes=CLASSES, options=losa.SideOptions(pool="mean"))
    trainable = sum(weight.numel() for weight in model.parameters())
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        labels = torch.randint(CLASSES, (32,), generator=generator)
        loss = cross_entropy(model(planes_of(labels, generator)), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
        optimiser.step()

    labels = torch.randint(CLASSES, (512,), generator=generator)
    cached = planes_of(labels, generator)
    with torch.inference_mode():
        logits = model.eval()(cached)
        live = model([plane.clone() for plane in cached])  # what a backbone would hand over
    top1 = float((logits.argmax(1) == labels).float().mean())
    print(f"{trainable} trainable parameters, top-1 {top1:.3f} (chance {1 / CLASSES})")
    print("cached == live:", bool(torch.equal(logits, live)))


if __name__ == "__main__":
    main()
