"""Weights of ViViT: transformers' checkpoints by a key map, image transformers by inflation.

A video transformer of losa's own names is read as it is. Every file becomes the same names, and is
then held against the network: nothing lacks, nothing is left over, shapes agree, all is finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from losa.errors import InputError, ResourceError
from losa.extract.video.vivit import VideoTransformer
from losa.extract.vivitshapes import VideoShape
from losa.extract.weights import (
    RANDOM,
    Tensors,
    check_tensors,
    hub_file,
    read_tensors,
    tensors_digest,
    warn_of_random,
)

OF_TIMM: Final = "timm:"
"""``--weights timm:NAME``: inflate the image transformer that timm publishes under this name."""

_KERNEL: Final = "patch_embed.proj.weight"
_OWN: Final = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": _KERNEL,
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_LAYER: Final = re.compile(r"(?:encoder\.layer|layers)\.(\d{1,4})\.(.+)\.(weight|bias)")
# Part of a layer in transformers' names, those of its files first, and timm's name of the same.
_PARTS: Final = {
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
_QKV: Final = {
    **{f"attention.attention.{name}": at for at, name in enumerate(("query", "key", "value"))},
    **{f"attention.{name}_proj": at for at, name in enumerate("qkv")},
}
_CLASSIFIERS: Final = ("pooler.", "classifier.", "head.")


def vivit_with_weights(
    shape: VideoShape, name: str, weights: str | None
) -> tuple[VideoTransformer, str]:
    """A ViViT at its weights' own size, and the digest of its tensors.

    Args:
        shape: the network asked for; frames and image size become those of the weights.
        name: what it is called in messages.
        weights: ``random``, a safetensors file, ``timm:`` and the name of an image transformer, or
            ``None``, for which there is nothing to fetch.

    Raises:
        InputError: the file is not safetensors, or its tensors are not this model's.
        ResourceError: no weights were named, or they cannot be fetched.
    """
    if weights is None:
        what = f"there are no weights to fetch for {name}"
        todo = "pass a .safetensors FILE of a ViViT or an image ViT, timm:NAME, or random"
        raise ResourceError("--weights", what, todo)
    if weights == RANDOM:
        warn_of_random(name)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = VideoTransformer(shape)
            model.initialise()
    else:
        is_timm = weights.startswith(OF_TIMM)
        file = hub_file(weights.removeprefix(OF_TIMM)) if is_timm else Path(weights)
        model = _loaded(shape, read_tensors(file), file)
    return model, tensors_digest(model.state_dict())


def frames_that_matter(kernel: Tensor) -> slice:
    """Frames of a tubelet that its kernel looks at: one, where all others are zero; else all.

    Example:
        >>> frames_that_matter(torch.tensor([0.0, 1.0]).reshape(1, 1, 2, 1, 1))
        slice(1, 2, None)
    """
    seen = [number for number in range(kernel.shape[2]) if bool(kernel[:, :, number].any())]
    return slice(seen[0], seen[0] + 1) if len(seen) == 1 else slice(0, kernel.shape[2])


def from_transformers(tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors of transformers' ViViT under losa's names, without pooler and classifier.

    Names are those of its checkpoint files or those of its modules, with or without the prefix
    ``vivit.``; queries, keys and values become one matrix. What is not known keeps its name.
    """
    found: Tensors = {}
    split: dict[str, dict[int, Tensor]] = {}
    for key, tensor in tensors.items():
        own = key.removeprefix("vivit.")
        if own.startswith(_CLASSIFIERS):
            continue
        layer = _LAYER.fullmatch(own)
        part = layer[2] if layer else ""
        if layer and part in _QKV:
            target = f"blocks.{layer[1]}.attn.qkv.{layer[3]}"
            split.setdefault(target, {})[_QKV[part]] = tensor
        elif layer and part in _PARTS:
            found[f"blocks.{layer[1]}.{_PARTS[part]}.{layer[3]}"] = tensor
        else:
            found[_OWN.get(own, own)] = tensor
    whole = {name: parts for name, parts in split.items() if len(parts) == len("qkv")}
    return found | {
        name: torch.cat([parts[at] for at in sorted(parts)]) for name, parts in whole.items()
    }


def inflated(tensors: Mapping[str, Tensor], shape: VideoShape) -> Tensors:
    """Tensors of an image transformer of timm as those of a ViViT.

    The patch kernel stands at the central frame of a tubelet, ``tubelet // 2``, with zeros around
    it, or on every frame with an equal share; positions are the same at every time step.

    Source: Arnab et al. 2021, section 3.4.
    """
    found = {key: tensor for key, tensor in tensors.items() if not key.startswith(_CLASSIFIERS)}
    kernel = found[_KERNEL]
    if shape.inflate == "average":
        found[_KERNEL] = (kernel / shape.tubelet).unsqueeze(2).repeat(1, 1, shape.tubelet, 1, 1)
    else:
        whole = kernel.new_zeros(*kernel.shape[:2], shape.tubelet, *kernel.shape[2:])
        whole[:, :, shape.tubelet // 2] = kernel
        found[_KERNEL] = whole
    positions = found.get("pos_embed")
    if positions is not None and shape.temporal is None:
        steps = shape.steps
        found["pos_embed"] = torch.cat(
            [positions[:, :1], positions[:, 1:].repeat(1, steps, 1)], dim=1
        )
    return found


def _loaded(shape: VideoShape, tensors: Tensors, file: Path) -> VideoTransformer:
    """A ViViT that holds exactly these weights, its positions of the weights' own size."""
    kernel = tensors.get(_KERNEL)
    if kernel is not None and kernel.ndim == len("dchw"):
        if shape.temporal:
            what = "is an image transformer's, which has no blocks over time"
            raise InputError(file, what, f"use --model {shape.alias}:temporal=0")
        state = inflated(tensors, shape)
        shape = _of_side(shape, state, 1 if shape.temporal is not None else shape.steps)
    else:
        state = dict(tensors) if kernel is not None else from_transformers(tensors)
        shape = _as_weights(shape, state)
    with torch.device("meta"):
        model = VideoTransformer(shape)
    wanted = model.state_dict()
    check_tensors(state, wanted, file)
    state = {key: tensor.to(wanted[key].dtype, copy=True) for key, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model


def _as_weights(shape: VideoShape, state: Mapping[str, Tensor]) -> VideoShape:
    """The shape with the frames and image size that the positions were made for.

    Those of joint attention are a box of unknown sides: taken for squares of the usual size, else
    for the usual number of time steps; what is neither is left for the check to find.
    """
    positions, times = state.get("pos_embed"), state.get("time_pos_embed")
    if shape.temporal is not None:
        if times is not None and times.ndim == len("nld"):
            shape = replace(shape, frames=(times.shape[1] - 1) * shape.tubelet)
        return _of_side(shape, state, 1)
    if positions is not None and positions.ndim == len("nld"):
        steps, rest = divmod(positions.shape[1] - 1, (shape.img_size // shape.patch) ** 2)
        if steps and not rest:
            return replace(shape, frames=steps * shape.tubelet)
    return _of_side(shape, state, shape.steps)


def _of_side(shape: VideoShape, state: Mapping[str, Tensor], steps: int) -> VideoShape:
    """The shape with the image size of positions that lie in so many squares."""
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != len("nld"):
        return shape
    tokens = positions.shape[1] - 1
    side = math.isqrt(tokens // steps)
    is_square = side > 0 and steps * side * side == tokens
    return replace(shape, img_size=side * shape.patch) if is_square else shape
