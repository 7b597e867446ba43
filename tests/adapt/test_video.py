"""Side networks on clips: their equations, their training, and that all of it repeats itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from losa.adapt.adaptor import LoSA
from losa.adapt.checkpoint import load_adaptor
from losa.adapt.cohort import CohortTrial, adapt_cohort
from losa.adapt.evaluate import evaluate
from losa.adapt.options import SideOptions, TokenAxes
from losa.adapt.progress import ProgressEvent
from losa.adapt.registry import ADAPTORS, build_adaptor
from losa.adapt.train import adapt_on
from losa.config import AdaptConfig
from losa.errors import UsageError
from losa.features import FeatureSpec, TokenGrid
from losa.precision import EncodedPlanes
from tests.adapt.test_cohort import assert_same
from tests.adapt.video_store import PER_CLIP, PER_STEP, ordered_store
from tests.oracles import side_network, video

AXES = {
    "factorised": ("channel", "space", "time"),
    "space": ("channel", "space"),
    "time": ("channel", "time"),
}


def trained(spec: FeatureSpec, options: SideOptions, name: str = "losa") -> Any:
    torch.manual_seed(3)
    adaptor = build_adaptor(name, spec, 5, options)
    for weight in adaptor.parameters():
        nn.init.normal_(weight, std=0.4)
    adaptor.standardise.load(torch.randn(2, 6), torch.rand(2, 6) + 0.5)
    return adaptor.eval()


def refined_by_oracle(state: dict[str, Any], b: list[Any], kind: str, grid: TokenGrid) -> Any:
    """y_i = g_i(b_i + y_{i-1}) - b_i, y_0 = 0; what the last mixer gives."""
    sizes = video.Video(grid.time, grid.positions, grid.prefix, grid.is_prefix_per_step)
    y = v = np.zeros_like(b[0])
    for i, plane in enumerate(b):
        weights = {
            axis: (state[f"mixers.{i}.{axis}.down"], state[f"mixers.{i}.{axis}.up"])
            for axis in AXES[kind]
        }
        v = video.mixer(plane + y, weights, AXES[kind], sizes)
        y = v - plane
    return video.pool(v, "cls+mean", sizes)


@pytest.mark.parametrize("kind", AXES)
@pytest.mark.parametrize("grid", [PER_STEP, PER_CLIP])
def test_logits_of_a_clip_agree_with_the_equations(grid: TokenGrid, kind: TokenAxes) -> None:
    spec = FeatureSpec("tiny", (1, 3), grid, 6)
    adaptor = trained(spec, SideOptions(rank=3, token_mixing=kind, pool="cls+mean"))
    planes = torch.randn(2, 4, grid.num_tokens, 6)
    state = {name: value.double().numpy() for name, value in adaptor.state_dict().items()}
    b = side_network.standardise(
        planes.double().numpy(), state["standardise.mean"], state["standardise.std"]
    )
    pooled = refined_by_oracle(state, b, kind, grid)
    head = (state["head.norm.weight"], state["head.norm.bias"])
    linear = (state["head.linear.weight"], state["head.linear.bias"])
    expected = side_network.head(pooled, (*head, *linear))
    for found in (adaptor(planes), adaptor(list(planes))):
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"mixer_norm": True}])
def test_what_is_computed_twice_gives_the_gradients_of_what_is_kept(
    options: dict[str, Any],
) -> None:
    spec = FeatureSpec("tiny", (1, 3), PER_STEP, 6)
    adaptor = trained(spec, SideOptions(rank=3, **options)).train()
    planes = torch.randn(2, 4, PER_STEP.num_tokens, 6)
    found = []
    for _ in range(2):
        adaptor.zero_grad()
        torch.manual_seed(0)
        adaptor(planes).square().sum().backward()
        found.append([weight.grad.clone() for weight in adaptor.parameters()])
        for mixer in adaptor.mixers:
            vars(mixer)["forward"] = mixer._added
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_joint_mixer_of_a_clip_is_that_of_an_image_with_its_tokens() -> None:
    clip, image = PER_CLIP, TokenGrid(8, 2, prefix=1)
    planes = torch.randn(2, 4, clip.num_tokens, 6)
    joint = trained(FeatureSpec("tiny", (1, 3), clip, 6), SideOptions(token_mixing="joint"))
    plain = trained(FeatureSpec("tiny", (1, 3), image, 6), SideOptions())
    assert torch.equal(joint(planes), plain(planes))


@pytest.mark.parametrize("name", [name for name in ADAPTORS if name != "losa"])
def test_rivals_see_a_clip_as_an_image_of_all_its_tokens(name: str) -> None:
    image = TokenGrid(8, 2, prefix=1)
    planes = torch.randn(2, 4, PER_CLIP.num_tokens, 6)
    clips = trained(FeatureSpec("tiny", (1, 3), PER_CLIP, 6), SideOptions(), name)
    images = trained(FeatureSpec("tiny", (1, 3), image, 6), SideOptions(), name)
    assert torch.equal(clips(planes), images(planes))
    steps = trained(FeatureSpec("tiny", (1, 3), PER_STEP, 6), SideOptions(), name)
    assert steps(torch.randn(2, 4, PER_STEP.num_tokens, 6)).isfinite().all()


def test_stored_planes_of_a_clip_give_the_logits_of_decoded_ones() -> None:
    adaptor = trained(FeatureSpec("tiny", (1, 3), PER_STEP, 6), SideOptions())
    raw = torch.randn(2, 4, PER_STEP.num_tokens, 6).half()
    encoded = EncodedPlanes(raw, "float16", (0, 2))
    torch.testing.assert_close(adaptor(encoded), adaptor(encoded.decoded()))


def test_factorised_mixers_are_not_trained_by_products_taken_elsewhere() -> None:
    adaptor = LoSA(FeatureSpec("tiny", (1, 3), PER_STEP, 6))
    raw = torch.zeros(2, 4, PER_STEP.num_tokens, 6).half()
    with pytest.raises(UsageError, match="--token-mixing"):
        adaptor.folded(EncodedPlanes(raw, "float16", (0, 0)))


def config_for(out: Path, **changes: Any) -> AdaptConfig:
    values = {"rank": 4, "epochs": 3, "batch_size": 16, "lr": 0.01, "warmup_epochs": 1.0}
    fixed = {"device": "cpu", "checkpoint_seconds": 1e9, "data_seed": 0}
    return AdaptConfig(out=out, **{**values, **fixed, **changes})


# A window whose middle lies evenly: else which steps are seen would tell the classes apart.
@pytest.mark.slow
@pytest.mark.parametrize("window", [{}, {"clip_frames": 2, "clip_stride": 1}])
@pytest.mark.parametrize("grid", [PER_STEP, PER_CLIP])
def test_what_the_order_of_steps_alone_says_is_learned_along_time_and_not_along_space(
    grid: TokenGrid, window: dict[str, int], tmp_path: Path
) -> None:
    store = ordered_store(grid)
    found = {}
    for kind in ("factorised", "space"):
        changes = {"epochs": 20, "token_mixing": kind, **window}
        report = adapt_on(store, config_for(tmp_path / kind, **changes))
        found[kind] = report.metrics["test"]["top1"]
    assert found["factorised"] > 0.9
    # Chance is a half; of 30 samples three deviations are 0.27.
    assert found["space"] < 0.78


def stop_at(epoch: int, step: int) -> Callable[[ProgressEvent], None]:
    def progress(event: ProgressEvent) -> None:
        if (event.phase, event.epoch, event.step) == ("train", epoch, step):
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("changes", [{"dropout": 0.2}, {"clip_frames": 2, "clip_stride": 2}])
def test_an_interrupted_run_on_clips_ends_with_the_bits_of_another(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    store = ordered_store(dtype="int8")
    adapt_on(store, config_for(tmp_path / "whole", **changes))
    with pytest.raises(KeyboardInterrupt):
        adapt_on(store, config_for(tmp_path / "cut", **changes), progress=stop_at(1, 3))
    adapt_on(store, config_for(tmp_path / "cut", **changes))
    assert_same(tmp_path / "cut", tmp_path / "whole")


def test_every_trial_on_clips_ends_in_a_cohort_with_the_bits_it_has_alone(tmp_path: Path) -> None:
    store = ordered_store()
    several: tuple[dict[str, Any], ...] = (
        {"token_mixing": "joint", "token_rank": 8},
        {"token_mixing": "joint", "rank": 8, "clip_frames": 2},
        {"time_rank": 2, "token_order": "time-space", "dropout": 0.2},
        {"clip_frames": 2, "seed": 2},
        {"adaptor": "linear", "clip_frames": 3, "clip_stride": 1},
    )
    several = tuple({"epochs": 2, **changes} for changes in several)
    for number, changes in enumerate(several):
        adapt_on(store, config_for(tmp_path / "alone" / str(number), **changes))
    trials = [
        CohortTrial(config_for(tmp_path / "together" / str(number), **changes))
        for number, changes in enumerate(several)
    ]
    found = adapt_cohort(store, trials)
    assert [outcome.reason for outcome in found] == [None] * len(several)
    for number in range(len(several)):
        assert_same(tmp_path / "together" / str(number), tmp_path / "alone" / str(number))


def test_a_run_on_clips_is_loaded_and_evaluated_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ordered_store()
    monkeypatch.setattr("losa.adapt.evaluate.open_source", lambda *_, **__: store)
    changes = {"clip_frames": 2, "time_rank": 3, "token_order": "time-space"}
    report = adapt_on(store, config_for(tmp_path, **changes))
    adaptor, card = load_adaptor(tmp_path)
    assert card.spec == store.spec
    assert adaptor.spec.grid == PER_STEP.with_time(2)
    assert adaptor.get_parameter("mixers.0.time.down").shape == (3, 2)
    found = evaluate(tmp_path, split="test", device="cpu", batch_size=7)
    for name, value in report.metrics["test"].items():
        assert found[name] == pytest.approx(value, rel=1e-5)
