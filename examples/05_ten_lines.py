"""LoSA beside any timm vision transformer in ten lines, as in a notebook: no store, no command.

Two kinds of noise to tell apart, and a tiny backbone with random weights. For real features use
``timm.create_model("vit_small_patch14_dinov2.lvd142m", pretrained=True, img_size=224)``, taps
such as 2, 5, 8, 11, a 16 x 16 grid and 384 channels:

    python examples/05_ten_lines.py
"""

from __future__ import annotations

import timm
import torch
from torch.nn.functional import cross_entropy

import losa

torch.manual_seed(0)
labels = torch.arange(16) % 2
images = torch.randn(16, 3, 160, 160) * (1 + labels.view(-1, 1, 1, 1))

# The ten lines.
vit = timm.create_model("test_vit").eval().requires_grad_(requires_grad=False)
planes = vit.forward_intermediates(images, [1, 3, 5], output_fmt="NLC", intermediates_only=True)
spec = losa.FeatureSpec("test_vit", (1, 3, 5), losa.TokenGrid(10, 10), channels=64)
model = losa.LoSA(spec, rank=8, num_classes=2)
model.standardise.load(torch.stack(planes).mean((1, 2)), torch.stack(planes).std((1, 2)))
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(40):
    optimiser.zero_grad()
    cross_entropy(model(planes), labels).backward()
    optimiser.step()

with torch.inference_mode():
    top1 = float((model.eval()(planes).argmax(1) == labels).float().mean())
print(f"top-1 on what it has seen {top1:.3f}")
