"""Trials made by hand, and a sweep that was really trained, for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.report.trials import Trial
from tests.adapt.memory_store import separable_store

CLASSES = {"top1", "loss"}
RANKS, RATES, SEEDS = (1, 2), (1e-3, 1e-2, 1e-1), (0, 1)


def trial(name: str = "a", val: float | None = 0.5, **facts: Any) -> Trial:
    """A trial with these facts; ``config``, ``test`` and ``loss`` as they are given."""
    config: Mapping[str, Any] = facts.pop("config", {})
    loss, test = facts.pop("loss", 1.0), facts.pop("test", val)
    metrics = {} if val is None else {"val": {"top1": val, "loss": loss}}
    if test is not None:
        metrics["test"] = {"top1": test, "loss": loss}
    return Trial(name=name, config=config, metrics=metrics, **facts)


def trained_sweep(root: Path) -> Path:
    """Twelve trials of two ranks, three rates and two seeds, as ``losa adapt`` leaves them."""
    store = separable_store({"train": 24, "val": 16, "test": 16}, noise=6.0)
    for rank in RANKS:
        for lr in RATES:
            for seed in SEEDS:
                out = root / "trials" / f"{rank}-{lr:g}-{seed}"
                config = AdaptConfig(out=out, rank=rank, lr=lr, seed=seed, epochs=3, device="cpu")
                adapt_on(store, config)
    return root


def write_result(folder: Path, **changes: Any) -> None:
    """A ``result.json`` of a sweep in the folder of a trial."""
    value = {
        "version": 1, "digest": folder.name, "status": "complete", "config": {"seed": 0},
        "store_id": "s", "metrics": {"val": {"top1": 0.5, "loss": 1.0}}, "parameters": {},
        "timing": {}, "memory": {}, "epochs": 3, "reason": None, **changes,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(value))


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, styles and scripts included."""
        return "".join(self.texts)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of one kind."""
        return [found for name, found in self.tags if name == tag]
