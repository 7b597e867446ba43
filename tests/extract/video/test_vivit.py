"""Claims of losa.extract.video.vivit: transformers' ViViT, and a slow factorised encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from losa.extract.video.vivit import VideoTransformer, resized
from losa.extract.video.weights import from_transformers
from losa.extract.vivitshapes import VideoShape

BOTH = slice(0, 2)
JOINT = VideoShape("vivit_b", 16, 24, 3, 96, 4, frames=6, img_size=48)
FACTORISED = VideoShape("vivit_b_fe", 16, 24, 2, 48, 4, temporal=2, frames=6, img_size=32)

Array = np.ndarray[Any, np.dtype[np.float64]]


def drawn(model: nn.Module, seed: int = 0) -> None:
    """Weights that are all different from zero, and large enough for every part to matter."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.eval()


def clips_of(shape: VideoShape, count: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, shape.frames, shape.img_size, shape.img_size)


def transformers_model(shape: VideoShape) -> Any:
    """transformers' own ViViT of a shape, with random weights."""
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers' ViViT")
    config = transformers.VivitConfig(
        image_size=shape.img_size,
        num_frames=shape.frames,
        tubelet_size=[shape.tubelet, shape.patch, shape.patch],
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        intermediate_size=shape.mlp,
    )
    model = transformers.VivitModel(config)
    drawn(model)
    return model


@pytest.mark.parametrize("is_from_file", [False, True], ids=["modules", "checkpoint"])
def test_all_hidden_states_are_those_of_transformers(tmp_path: Path, *, is_from_file: bool) -> None:
    other = transformers_model(JOINT)
    tensors = other.state_dict()
    if is_from_file:
        # transformers writes names that are not those of its modules.
        other.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
    model = VideoTransformer(JOINT).eval()
    model.load_state_dict(from_transformers(tensors))
    first: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: first.append(given[0]))
    clips = clips_of(JOINT)
    with torch.no_grad():
        found = model(clips, range(JOINT.depth), BOTH)
        told = other(clips.transpose(1, 2), output_hidden_states=True)
    assert len(told.hidden_states) == 1 + JOINT.depth
    for mine, theirs in zip([*first, *found], told.hidden_states, strict=True):
        assert theirs.abs().max() > 1
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
    with torch.no_grad():
        last = model.norm(found[-1])
    torch.testing.assert_close(last, told.last_hidden_state, rtol=0, atol=1e-4)


def slow_norm(tokens: Array, weights: dict[str, Array], name: str) -> Array:
    mean, variance = tokens.mean(-1, keepdims=True), tokens.var(-1, keepdims=True)
    normed = (tokens - mean) / np.sqrt(variance + 1e-6)
    scaled: Array = normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return scaled


def slow_linear(tokens: Array, weights: dict[str, Array], name: str) -> Array:
    return tokens @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def slow_block(tokens: Array, weights: dict[str, Array], name: str, heads: int) -> Array:
    """A pre-norm block over tokens ``[l d]``, one head at a time."""
    width = tokens.shape[1]
    each = width // heads
    qkv = slow_linear(slow_norm(tokens, weights, f"{name}.norm1"), weights, f"{name}.attn.qkv")
    mixed = np.zeros_like(tokens)
    for head in range(heads):
        q, k, v = (qkv[:, at * width + head * each :][:, :each] for at in range(3))
        scores = np.exp(q @ k.T / np.sqrt(each))
        mixed[:, head * each :][:, :each] = scores / scores.sum(1, keepdims=True) @ v
    tokens = tokens + slow_linear(mixed, weights, f"{name}.attn.proj")
    wide = slow_linear(slow_norm(tokens, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
    wide = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    return tokens + slow_linear(wide, weights, f"{name}.mlp.fc2")


def slow_steps(clip: Array, weights: dict[str, Array], shape: VideoShape) -> list[Array]:
    """Tokens ``[1+s d]`` of each time step, class token first, positions added."""
    kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    side, steps = shape.img_size // shape.patch, []
    for step in range(shape.steps):
        tokens = [weights["cls_token"][0, 0]]
        for row in range(side):
            for column in range(side):
                corner = (step * shape.tubelet, row * shape.patch, column * shape.patch)
                ends = [at + size for at, size in zip(corner, kernel.shape[2:], strict=True)]
                box = tuple(slice(at, end) for at, end in zip(corner, ends, strict=True))
                tokens.append((kernel * clip[:, *box]).sum((1, 2, 3, 4)) + bias)
        steps.append(np.stack(tokens) + weights["pos_embed"][0])
    return steps


def slow_planes(clip: Array, weights: dict[str, Array], shape: VideoShape) -> list[Array]:
    """Planes ``[l d]`` of a factorised encoder, one step, one patch and one head at a time."""
    assert shape.temporal is not None
    steps, planes = slow_steps(clip, weights, shape), []
    for number in range(shape.depth):
        steps = [slow_block(one, weights, f"blocks.{number}", shape.heads) for one in steps]
        planes.append(np.stack([one[0] for one in steps] + [t for one in steps for t in one[1:]]))
    summary = [slow_norm(one[0], weights, "norm") for one in steps]
    tokens = np.stack([weights["time_cls_token"][0, 0], *summary]) + weights["time_pos_embed"][0]
    for number in range(shape.temporal):
        tokens = slow_block(tokens, weights, f"time_blocks.{number}", shape.heads)
        planes.append(np.concatenate([tokens[1:], planes[shape.depth - 1][shape.steps :]]))
    return planes


def test_the_factorised_encoder_is_that_of_a_slow_reference() -> None:
    model = VideoTransformer(FACTORISED)
    drawn(model)
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    clips = clips_of(FACTORISED)
    with torch.no_grad():
        found = model(clips, range(FACTORISED.blocks), BOTH)
    for at, clip in enumerate(clips.double().numpy()):
        wanted = slow_planes(clip, weights, FACTORISED)
        assert len(wanted) == len(found) == 4
        for mine, slow in zip(found, wanted, strict=True):
            np.testing.assert_allclose(mine[at].numpy(), slow, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [JOINT, FACTORISED], ids=lambda shape: shape.alias)
def test_taps_are_picked_and_what_lies_above_them_does_not_run(shape: VideoShape) -> None:
    model = VideoTransformer(shape)
    drawn(model)
    clips = clips_of(shape)
    blocks = [*model.blocks, *getattr(model, "time_blocks", [])]
    with torch.no_grad():
        whole = model(clips, range(shape.blocks), BOTH)
        for last in range(shape.blocks - 1):
            handle = blocks[last + 1].register_forward_hook(lambda *_: pytest.fail("ran"))
            (plane,) = model(clips, (last,), BOTH)
            torch.testing.assert_close(plane, whole[last], rtol=0, atol=0)
            handle.remove()


def test_positions_of_the_same_size_stay_and_others_are_interpolated_axis_by_axis() -> None:
    model = VideoTransformer(JOINT)
    ramp = torch.arange(3.0).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 3, JOINT.width)
    own = torch.full((1, 1, JOINT.width), 7.0)
    with torch.no_grad():
        model.pos_embed.copy_(torch.cat([own, ramp.flatten(1, 3)], dim=1))
    before = model.pos_embed.detach().clone()
    resized(model, (48, 48), 6)
    assert torch.equal(model.pos_embed, before)
    resized(model, (80, 80), 12)
    positions = model.pos_embed.detach()
    assert torch.equal(positions[:, :1], own)
    steps = positions[0, 1:].reshape(6, 25, -1)
    # Linear between the centres of three steps, flat beyond the outer ones.
    wanted = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.0])
    torch.testing.assert_close(steps, wanted[:, None, None].expand(6, 25, JOINT.width))


def test_positions_over_time_and_space_of_the_factorised_encoder_are_resized_apart() -> None:
    model = VideoTransformer(FACTORISED)
    drawn(model)
    resized(model, (64, 64), 12)
    assert model.pos_embed.shape == (1, 1 + 16, 24)
    assert model.time_pos_embed.shape == (1, 1 + 6, 24)
