"""From the last plane to logits: pool the tokens, then LayerNorm and a linear classifier."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losa.errors import UsageError
from losa.features import TokenGrid

PoolName = Literal["auto", "cls", "mean", "cls+mean"]


class Pool(nn.Module):
    """A plane's tokens to one vector: the CLS token, the mean patch token, or both side by side.

    ``auto`` is both where the grid has a prefix token, else the mean. CLS is the first prefix
    token, or the mean of each time step's first; other prefix tokens (registers) are never pooled.

    Raises:
        UsageError: CLS is asked of a grid without prefix tokens.

    Example:
        >>> Pool(TokenGrid(14, 14, prefix=1)).name, Pool(TokenGrid(14, 14)).name
        ('cls+mean', 'mean')
    """

    name: Literal["cls", "mean", "cls+mean"]

    def __init__(self, grid: TokenGrid, pool: PoolName = "auto") -> None:
        super().__init__()
        if pool == "auto":
            pool = "cls+mean" if grid.prefix else "mean"
        if pool != "mean" and not grid.prefix:
            raise UsageError("--pool", f"{pool!r} needs a prefix token, there is none", "use mean")
        self.name = pool
        self.prefix = grid.prefix
        self.step_prefix = grid.step_prefix

    @property
    def vectors(self) -> int:
        """How many vectors of d channels lie side by side in the result."""
        return 2 if self.name == "cls+mean" else 1

    def matrix(self, tokens: int) -> Float[Tensor, "e l"]:
        """What pooling is, a row of weights for each vector: it is linear in the tokens."""
        cls, mean = torch.zeros(2, tokens)
        if self.prefix:
            cls[: self.prefix : self.step_prefix] = self.step_prefix / self.prefix
        mean[self.prefix :] = 1 / (tokens - self.prefix)
        return torch.stack({"cls": [cls], "mean": [mean], "cls+mean": [cls, mean]}[self.name])

    def forward(self, plane: Float[Tensor, "b l d"]) -> Float[Tensor, "b e"]:
        """Pool one plane."""
        if self.name == "cls":
            return self._cls(plane)
        mean = plane[:, self.prefix :].mean(dim=1)
        return mean if self.name == "mean" else torch.cat([self._cls(plane), mean], dim=1)

    def _cls(self, plane: Float[Tensor, "b l d"]) -> Float[Tensor, "b d"]:
        if self.step_prefix == self.prefix:
            return plane[:, 0]
        return plane[:, : self.prefix : self.step_prefix].mean(dim=1)


class Head(nn.Module):
    """LayerNorm and a linear classifier that starts at zero, so that all classes start even."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.linear = nn.Linear(features, num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Float[Tensor, "b e"]) -> Float[Tensor, "b y"]:
        """Logits of pooled features."""
        logits: Float[Tensor, "b y"] = self.linear(self.norm(pooled))
        return logits
