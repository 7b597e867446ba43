"""Claims of losa.extract.video.weights: key maps, inflation, and files that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from losa.errors import InputError, ResourceError
from losa.extract.video.vivit import VideoTransformer
from losa.extract.video.weights import frames_that_matter, inflated, vivit_with_weights
from losa.extract.vivitshapes import VideoShape
from losa.extract.weights import tensors_digest

SHAPE = VideoShape("vivit_b", 16, 24, 2, 96, 4, frames=4, img_size=32)
FACTORISED = replace(SHAPE, alias="vivit_b_fe", temporal=0)


def image_model(side: int = 32) -> Any:
    """An image transformer of timm of the same sizes, with the GELU that ViViT has."""
    torch.manual_seed(0)
    model: Any = timm.create_model(
        "vit_base_patch16_224",
        img_size=side,
        embed_dim=24,
        depth=2,
        num_heads=4,
        num_classes=5,
        act_layer="gelu_tanh",
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def saved(tensors: dict[str, Tensor], folder: Path) -> str:
    file = folder / "weights.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return str(file)


def test_random_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, digest = vivit_with_weights(SHAPE, "vivit", "random")
    assert torch.equal(torch.get_rng_state(), state)
    assert vivit_with_weights(SHAPE, "vivit", "random")[1] == digest
    assert digest == tensors_digest(one.state_dict())
    kernel = one.patch_embed.proj.weight
    assert 0.018 < float(kernel.detach().std()) < 0.022


def test_without_weights_there_is_nothing_to_fetch() -> None:
    with pytest.raises(ResourceError, match=r"--weights: there are no weights to fetch for vivit"):
        vivit_with_weights(SHAPE, "vivit", None)


@pytest.mark.parametrize("inflate", ["central", "average"])
def test_an_inflated_image_model_sees_a_still_clip_as_the_image_at_every_step(
    tmp_path: Path, inflate: Any
) -> None:
    image = image_model()
    shape = replace(FACTORISED, inflate=inflate)
    weights = saved(image.state_dict(), tmp_path)
    model, _ = vivit_with_weights(shape, "vivit", weights)
    still = torch.randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        (plane,) = model.eval()(still.expand(-1, -1, 4, -1, -1), (1,), slice(0, 2))
        both = image.forward_intermediates(
            still[:, :, 0],
            indices=[1],
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
    ((patches, prefix),) = both
    wanted = torch.cat([prefix.repeat(1, 2, 1), patches.repeat(1, 2, 1)], dim=1)
    torch.testing.assert_close(plane, wanted, rtol=1e-4, atol=1e-4)


def test_central_inflation_looks_at_the_frame_behind_the_middle_alone() -> None:
    image = image_model().state_dict()
    central = inflated(image, SHAPE)["patch_embed.proj.weight"]
    assert torch.equal(central[:, :, 1], image["patch_embed.proj.weight"])
    assert not central[:, :, 0].any()
    assert frames_that_matter(central) == slice(1, 2)
    longer = inflated(image, replace(SHAPE, tubelet=4))["patch_embed.proj.weight"]
    assert frames_that_matter(longer) == slice(2, 3)
    average = inflated(image, replace(SHAPE, inflate="average"))["patch_embed.proj.weight"]
    assert frames_that_matter(average) == slice(0, 2)
    torch.testing.assert_close(average.sum(2), image["patch_embed.proj.weight"])


@pytest.mark.parametrize("side", [32, 64])
def test_positions_of_an_image_are_those_of_every_time_step(tmp_path: Path, side: int) -> None:
    image = image_model(side)
    model, _ = vivit_with_weights(SHAPE, "vivit", saved(image.state_dict(), tmp_path))
    assert model.shape.img_size == side
    positions = model.pos_embed.detach()
    assert torch.equal(positions[:, :1], image.pos_embed[:, :1])
    for step in positions[:, 1:].chunk(2, dim=1):
        assert torch.equal(step, image.pos_embed[:, 1:])


@pytest.mark.parametrize(
    "own",
    [
        replace(SHAPE, frames=8),
        replace(SHAPE, img_size=48),
        replace(SHAPE, alias="vivit_b_fe", temporal=1, frames=8, img_size=48),
    ],
    ids=["longer", "larger", "factorised"],
)
def test_weights_of_another_clip_keep_the_size_their_positions_have(
    tmp_path: Path, own: VideoShape
) -> None:
    other, digest = vivit_with_weights(own, "vivit", "random")
    asked = replace(SHAPE, alias=own.alias, temporal=own.temporal)
    found = vivit_with_weights(asked, "vivit", saved(other.state_dict(), tmp_path))
    assert found[0].shape == own
    assert found[1] == digest


def test_image_weights_have_no_blocks_over_time(tmp_path: Path) -> None:
    weights = saved(image_model().state_dict(), tmp_path)
    with pytest.raises(InputError, match=r"no blocks over time; use --model vivit_b_fe:temporal=0"):
        vivit_with_weights(replace(FACTORISED, temporal=4), "vivit", weights)


def mistaken(tensors: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    """The tensors with one mistake."""
    if what == "lacks":
        return {key: tensor for key, tensor in tensors.items() if key != "blocks.1.mlp.fc2.bias"}
    if what == "unknown":
        return {**tensors, "blocks.0.ls1.gamma": torch.ones(24)}
    if what == "wrong shape":
        return {**tensors, "pos_embed": torch.zeros(1, 6, 24)}
    if what == "not finite":
        return {**tensors, "norm.weight": torch.full((24,), torch.nan)}
    return {"unrelated": torch.zeros(1)}


@pytest.mark.parametrize(
    "what", ["lacks", "unknown", "wrong shape", "not finite", "another model's"]
)
def test_tensors_that_are_not_this_models_are_named(tmp_path: Path, what: str) -> None:
    tensors = VideoTransformer(SHAPE).state_dict()
    with pytest.raises(InputError, match=r"weights.safetensors: (lacks|has|holds).*; give the"):
        vivit_with_weights(SHAPE, "vivit", saved(mistaken(tensors, what), tmp_path))


def test_queries_without_their_keys_and_values_are_refused(tmp_path: Path) -> None:
    tensors = {
        "vivit.embeddings.cls_token": torch.zeros(1, 1, 24),
        "vivit.encoder.layer.0.attention.attention.query.weight": torch.zeros(24, 24),
    }
    with pytest.raises(InputError, match="lacks pos_embed"):
        vivit_with_weights(SHAPE, "vivit", saved(tensors, tmp_path))
