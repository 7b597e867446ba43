"""Claims of benchmarks.onlinetrain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import onlinetrain
from benchmarks.onlinetrain import Labelled, Learner, Recipe, Score, decoded, train
from losa.device import Compute
from losa.errors import InputError
from losa.extract.backbones import BackboneRequest, build_backbone
from losa.extract.datasets import load_dataset
from losa.extract.vit import ViTBackbone
from tests.extract.picture_folder import picture_folder

CPU = Compute(torch.device("cpu"))


@pytest.fixture(scope="module")
def backbone() -> ViTBackbone:
    request = BackboneRequest("vit_tiny_patch16_224", "random", 32, "last", dtype="float32")
    found = build_backbone(request, device=CPU.device, amp_dtype=None)
    assert isinstance(found, ViTBackbone)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, backbone: ViTBackbone) -> dict[str, Labelled]:
    root = tmp_path_factory.mktemp("online")
    folder = picture_folder(root / "p", {"train": 4, "val": 2, "test": 2})
    dataset = load_dataset(f"folder:{folder}", Path(), splits=None, seed=0)
    return decoded(dataset, backbone.preprocessing, 0)


def recipe(method: str = "bitfit", lr: float = 1e-3, epochs: int = 2) -> Recipe:
    return Recipe(method, lr, seed=0, epochs=epochs, batch_size=4)


def test_pixels_are_in_the_order_of_the_labels(data: dict[str, Labelled]) -> None:
    assert [len(data[name].labels) for name in ("train", "val", "test")] == [12, 6, 6]
    # Classes are blue, green and red: a picture's strongest colour is its class, counted from blue.
    strongest = data["train"].pixels.float().mean((1, 2)).argmax(1)
    assert torch.equal(2 - strongest, data["train"].labels)


def test_a_split_that_is_not_there_is_named(backbone: ViTBackbone, tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "p", {"train": 1, "val": 1})
    dataset = load_dataset(f"folder:{folder}", Path(), splits=None, seed=0)
    with pytest.raises(InputError, match="has no test split"):
        decoded(dataset, backbone.preprocessing, 0)


def test_equal_recipes_end_equal(backbone: ViTBackbone, data: dict[str, Labelled]) -> None:
    first, second = (train(backbone, data, recipe("vpt"), CPU) for _ in range(2))
    assert first["curve"] == second["curve"]
    assert first["test"] == second["test"]


def test_test_is_scored_with_the_weights_of_the_epoch_that_val_chose(
    backbone: ViTBackbone, data: dict[str, Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    # Val, val, val, test: the second epoch is best.
    scores = iter([Score(0.5, 1.0), Score(0.9, 1.0), Score(0.2, 1.0), Score(0.7, 1.0)])

    def scored(learner: Learner, part: Labelled) -> Score:
        del part
        seen.append(learner.weights())
        return next(scores)

    monkeypatch.setattr(onlinetrain.Learner, "score", scored)
    found = train(backbone, data, recipe(epochs=3), CPU)
    assert (found["best_epoch"], found["val"]["top1"], found["test"]["top1"]) == (2, 0.9, 0.7)
    assert all(torch.equal(seen[3][name], value) for name, value in seen[1].items())
    assert not all(torch.equal(seen[3][name], value) for name, value in seen[2].items())


def test_a_training_that_diverges_ends_and_says_so(
    backbone: ViTBackbone, data: dict[str, Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onlinetrain.Learner, "epoch", lambda *_: float("nan"))
    found = train(backbone, data, recipe(), CPU)
    assert (found["val"], found["test"], found["curve"]) == (None, None, [])


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(data: dict[str, Labelled]) -> None:
    shown: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(1, 3))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            for image in pixels:
                same = (data["train"].pixels == image).flatten(1).all(1)
                shown.append(int(same.nonzero()[0]))
            return self.logits.expand(len(pixels), 3)

    learner = Learner(Counting(), recipe(), 12, CPU)
    for epoch in range(2):
        learner.epoch(data["train"], epoch)
    assert sorted(shown[:12]) == sorted(shown[12:]) == list(range(12))
    assert shown[:12] != shown[12:]
