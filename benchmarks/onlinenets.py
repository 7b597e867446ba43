"""Online rivals: ways to tune a vision transformer that need its forward and backward every step.

Each changes a copy of the backbone so that exactly what the method trains takes gradients; all
share one classifier, the head of the side network on the backbone's last normalised tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from losa.adapt.head import Head, Pool
from losa.extract.vit import ViTBackbone

LORA_RANK: Final = 8
PROMPTS: Final = 10
"""Prompt tokens of each block: our choice; VPT (arXiv 2203.12119) searches their number by task."""


@dataclass(frozen=True, slots=True)
class Method:
    """How a backbone becomes trainable, and its recipe.

    ``lrs`` are what val chooses from, a grid of ours around published rates; ``weight_decay`` is of
    matrices alone.
    """

    tune: Callable[[nn.Module], None]
    lrs: tuple[float, ...]
    weight_decay: float
    source: str


class OnlineNet(nn.Module):
    """Pixels to logits: a tuned copy of a backbone, its own final norm, pool and head.

    Args:
        backbone: frozen; it is copied, and says how pixels are normalised.
        method: what of the copy is trained.
        num_classes: logits.
    """

    def __init__(self, backbone: ViTBackbone, method: Method, num_classes: int) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(backbone.model)
        method.tune(self.trunk)
        self.pool = Pool(backbone.spec.grid)
        self.head = Head(self.pool.vectors * backbone.spec.channels, num_classes)
        self.to(backbone.device)
        self._normalise = backbone.normalise

    def forward(self, pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b y"]:
        """Logits of one batch of decoded images."""
        trunk: Any = self.trunk
        tokens = trunk.forward_features(self._normalise(pixels))
        logits: Float[Tensor, "b y"] = self.head(self.pool(tokens))
        return logits


class SplitQKV(nn.Module):
    """timm's one projection to queries, keys and values as three, which LoRA tells apart."""

    def __init__(self, joined: nn.Linear) -> None:
        super().__init__()
        channels = joined.in_features
        weights, biases = joined.weight.chunk(3), joined.bias.chunk(3)
        parts = []
        for weight, bias in zip(weights, biases, strict=True):
            part = nn.Linear(channels, len(weight))
            with torch.no_grad():
                part.weight.copy_(weight)
                part.bias.copy_(bias)
            parts.append(part)
        self.q, self.k, self.v = parts

    def forward(self, tokens: Float[Tensor, "b l d"]) -> Float[Tensor, "b l e"]:
        """Queries, keys and values, side by side."""
        return torch.cat([self.q(tokens), self.k(tokens), self.v(tokens)], dim=-1)


class PromptedBlock(nn.Module):
    """A block that sees learned tokens behind the prefix; what it makes of them is dropped.

    Deep prompts are replaced before every block, so that putting them in and taking them out around
    each is the same network.

    Source: visual prompt tuning (arXiv 2203.12119), VPT-deep; initialisation of its official code.
    """

    def __init__(self, block: nn.Module, prompts: int, prefix: int, shape: tuple[int, int]) -> None:
        super().__init__()
        patch_values, channels = shape
        bound = math.sqrt(6.0 / (patch_values + channels))
        self.block = block
        self.prompts = nn.Parameter(torch.empty(1, prompts, channels).uniform_(-bound, bound))
        self._prefix = prefix

    def forward(self, tokens: Float[Tensor, "b l d"], **options: Any) -> Float[Tensor, "b l d"]:
        """The block's output at the tokens that came in."""
        first = self._prefix
        prompts = self.prompts.expand(len(tokens), -1, -1)
        seen = torch.cat([tokens[:, :first], prompts, tokens[:, first:]], dim=1)
        found = self.block(seen, **options)
        return torch.cat([found[:, :first], found[:, first + self.prompts.shape[1] :]], dim=1)


def tune_all(trunk: nn.Module) -> None:
    """Every weight is trained."""
    trunk.requires_grad_(requires_grad=True)


def tune_biases(trunk: nn.Module) -> None:
    """All biases, those of norms included, and nothing else.

    Source: BitFit (arXiv 2106.10199).
    """
    for name, value in trunk.named_parameters():
        value.requires_grad_(name.rpartition(".")[2] == "bias")


def tune_low_rank(trunk: nn.Module) -> None:
    """Low-rank deltas of queries and values, by peft, with its default rank and scale.

    Source: LoRA (arXiv 2106.09685).
    """
    from peft import LoraConfig, inject_adapter_in_model

    parts: Any = trunk
    for block in parts.blocks:
        block.attn.qkv = SplitQKV(block.attn.qkv)
    config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=r".*\.attn\.qkv\.(q|v)")
    inject_adapter_in_model(config, trunk)


def tune_prompts(trunk: nn.Module) -> None:
    """Learned tokens before every block; the trunk itself stays as it is."""
    parts: Any = trunk
    patch_values = 3 * math.prod(parts.patch_embed.patch_size)
    shape = (patch_values, int(parts.embed_dim))
    prefix = int(parts.num_prefix_tokens)
    parts.blocks = nn.Sequential(
        *(PromptedBlock(block, PROMPTS, prefix, shape) for block in parts.blocks)
    )


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "full": Method(
            tune_all, (1e-5, 3e-5, 1e-4), 5e-2, "AdamW, decay 0.05 as DeiT (arXiv 2012.12877)"
        ),
        "lora": Method(
            tune_low_rank, (3e-4, 1e-3, 3e-3), 1e-4, "arXiv 2106.09685; VTAB recipe 1e-3, 1e-4"
        ),
        "bitfit": Method(
            tune_biases, (3e-4, 1e-3, 3e-3), 1e-4, "arXiv 2106.10199; VTAB recipe 1e-3, 1e-4"
        ),
        "vpt": Method(
            tune_prompts, (1e-3, 3e-3, 1e-2), 1e-4, "arXiv 2203.12119; VTAB recipe 1e-3, 1e-4"
        ),
    }
)
"""By name; the VTAB recipe is that of Adapter+ (arXiv 2406.06820): AdamW, no augmentation."""
