"""Claims of losa.live.backbone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from losa.adapt.checkpoint import load_card, load_weights, save_card, save_weights
from losa.adapt.registry import build_adaptor
from losa.errors import MismatchError
from losa.live.backbone import LivePipeline, decode_workers
from tests.extract.overflow import always, in_autocast, overflow
from tests.live.trained import Trained, train_small


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def trained(made: Trained, tmp_path: Path) -> Trained:
    """A run of the test's own, to change."""
    return replace(made, run=Path(shutil.copytree(made.run, tmp_path / "run")))


def test_other_weights_are_refused_by_name(trained: Trained, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    safetensors.torch.save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(MismatchError, match=r"--weights: .*weights: [0-9a-f]{57}") as caught:
        LivePipeline(trained.run, str(tmp_path / "other.safetensors"), "cpu")
    assert caught.value.exit_code == 5


def rewrite_card(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a run's card as a hand-edited or foreign one would differ, digests and all."""
    card = load_card(run)
    tensors = load_weights(run / "best.safetensors", card)
    value = card.to_json()
    change(value)
    changed = type(card).from_json(json.loads(json.dumps(value)))
    save_card(run, changed)
    module = build_adaptor(changed.adaptor, changed.spec, len(changed.classes), changed.options)
    module.load_state_dict(tensors)
    save_weights(run / "best.safetensors", module, changed.metadata)


@pytest.mark.parametrize(
    ("field", "value"), [("mean", [0.1, 0.2, 0.3]), ("crop_pct", 0.5), ("interpolation", "box")]
)
def test_other_preprocessing_is_refused_by_field(trained: Trained, field: str, value: Any) -> None:
    rewrite_card(trained.run, lambda card: card["preprocessing"].update({field: value}))
    with pytest.raises(MismatchError, match=rf"preprocessing\.{field}: ") as caught:
        LivePipeline(trained.run, "random", "cpu")
    assert caught.value.exit_code == 5


def test_processes_start_only_where_there_are_batches_for_them() -> None:
    assert decode_workers("auto", 1) == 0
    assert 1 <= decode_workers("auto", 2) <= 2
    assert [decode_workers(asked, 9) for asked in (0, 3)] == [0, 3]


def test_what_autocast_overflows_is_computed_in_float32_and_what_does_not_fit_then_has_no_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = LivePipeline(train_small(tmp_path, amp_dtype="bfloat16").run, "random", "cpu")
    pixels = np.full((2, 32, 32, 3), 255, np.uint8)
    pixels[1] = 9
    clean = pipeline.logits(pixels)
    overflow(monkeypatch, torch.inf, in_autocast)
    mended = pipeline.logits(pixels)
    assert torch.equal(mended[1], clean[1])
    assert 0 < (mended[0] - clean[0]).abs().max() < 0.1
    overflow(monkeypatch, torch.inf, always)
    refused = pipeline.logits(pixels)
    assert refused[0].isnan().all()
    assert torch.equal(refused[1], clean[1])
