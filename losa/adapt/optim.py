"""AdamW, its parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from losa.config import AdaptConfig

MOMENTS: Final = ("step", "exp_avg", "exp_avg_sq")


def cosine_lr(step: int, *, lr: float, warmup_steps: int, steps: int) -> float:
    """Learning rate of ``step``: linear warm-up, then a half cosine down to zero at ``steps``.

    Warm-up takes half of the training at most, so that a short training reaches its rate.

    Source: SGDR (arXiv 1608.03983), eq. 5, without restarts.

    Example:
        >>> [cosine_lr(step, lr=0.1, warmup_steps=2, steps=6) for step in (0, 1, 2, 4)]
        [0.05, 0.1, 0.1, 0.05]
    """
    warmup_steps = min(warmup_steps, steps // 2)
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return lr * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True, slots=True)
class HeadRates:
    """What the head has for itself: a share of the learning rate, and a decay if not all's."""

    lr_share: float = 1.0
    weight_decay: float | None = None


def head_rates(config: AdaptConfig) -> HeadRates:
    """The head's rates of a configuration."""
    share = 1.0 if config.head_lr is None else config.head_lr / config.lr
    return HeadRates(share, config.head_weight_decay)


def parameter_groups(
    module: nn.Module, weight_decay: float, head: HeadRates | None = None
) -> list[dict[str, Any]]:
    """Parameters by what becomes of them; ``lr_share`` is what :func:`set_lr` multiplies by.

    Matrices decay; vectors (biases, gains of norms) do not: shrinking a gain is no prior. What is
    below the attribute ``head`` goes by its own rates.
    """
    head = head or HeadRates()
    of_head = weight_decay if head.weight_decay is None else head.weight_decay
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in module.named_parameters():
        if not value.requires_grad:
            continue
        is_head = name.startswith("head.")
        decay = (of_head if is_head else weight_decay) if value.ndim > 1 else 0.0
        groups.setdefault((head.lr_share if is_head else 1.0, decay), []).append(value)
    return [
        {"params": params, "weight_decay": decay, "lr_share": share}
        for (share, decay), params in groups.items()
    ]


def build_optimiser(
    module: nn.Module, *, lr: float, weight_decay: float, head: HeadRates | None = None
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of ``module``, fused into one pass over their memory."""
    groups = parameter_groups(module, weight_decay, head)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def set_lr(optimiser: torch.optim.AdamW, lr: float) -> None:
    """Give every group its share of the learning rate ``lr``."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_share"]


def moments(optimiser: torch.optim.AdamW, module: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as tensors named ``<parameter>/<moment>``; empty before step one."""
    return {
        f"{name}/{moment}": optimiser.state[parameter][moment]
        for name, parameter in module.named_parameters()
        if parameter in optimiser.state
        for moment in MOMENTS
    }


def load_moments(
    optimiser: torch.optim.AdamW, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what :func:`moments` gave.

    Raises:
        KeyError: a parameter has some of its moments only.
        ValueError: a moment has another shape than its parameter.
    """
    optimiser.state.clear()
    for name, parameter in module.named_parameters():
        if f"{name}/{MOMENTS[0]}" not in tensors:
            continue
        # Fused AdamW keeps the count of steps beside the parameter.
        state = {moment: tensors[f"{name}/{moment}"].to(parameter.device) for moment in MOMENTS}
        if any(state[moment].shape != parameter.shape for moment in MOMENTS[1:]):
            raise ValueError(f"moments of {name} do not fit it")
        optimiser.state[parameter] = state
