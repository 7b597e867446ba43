"""Weights of a backbone: found, checked, loaded at their own size, and named by their digest.

Only safetensors are read; nothing is unpickled. A model is first built at the size of its weights,
so that the digest of what was loaded does not depend on the image size asked for.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn

from losa.errors import InputError, ResourceError
from losa.extract.vivitshapes import is_video_model

RANDOM: Final = "random"
"""The word for ``--weights`` that asks for a seeded initialisation."""

_HUB_SECONDS: Final = 10
_SAFE_NAMES: Final[Mapping[str, str]] = {
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}
_TRUE: Final = ("1", "on", "true", "yes")

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


def build_with_weights(name: str, weights: str | None) -> tuple[nn.Module, str]:
    """A timm model at its weights' own size, without a classifier, and the digest of its tensors.

    Args:
        name: a timm name with its tag.
        weights: ``random``, a safetensors file, or ``None`` for those of the hub.

    Raises:
        InputError: the file is not safetensors, or its tensors are not this model's.
        ResourceError: the weights are not here and cannot be fetched.
    """
    if weights == RANDOM:
        model = _random_model(name)
    else:
        file = Path(weights) if weights is not None else hub_file(name)
        model = _loaded_model(name, read_tensors(file), file)
    return model, tensors_digest(model.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Sha256 over the sorted names, dtypes, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()


def read_tensors(file: Path) -> Tensors:
    """Tensors of a safetensors file.

    Raises:
        InputError: the file is missing, of another kind, or damaged.
    """
    if not file.is_file():
        raise InputError(file, "is missing or no regular file", "give a .safetensors file")
    if file.suffix != ".safetensors":
        what = "is not a .safetensors file, and losa unpickles nothing"
        raise InputError(
            file, what, "convert weights that you trust with safetensors.torch.save_file"
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        what = f"is not readable as safetensors ({_one_line(error)})"
        raise InputError(file, what, "fetch the file again") from None


def hub_file(name: str) -> Path:
    """The safetensors file that timm publishes for a model: from the cache, else from the hub.

    ``HF_HUB_OFFLINE=1`` or ``LOSA_OFFLINE=1`` keep to the cache.

    Raises:
        ResourceError: the file is not in the cache and cannot be fetched, or none is published.
    """
    import huggingface_hub

    wanted = _hub_place(name)
    if wanted is None:
        what = f"timm publishes no weights for {name}"
        raise ResourceError("--weights", what, f"pass a .safetensors FILE, or {RANDOM}")
    repo, file = wanted["repo_id"], wanted["filename"]
    try:
        try:
            return Path(huggingface_hub.hf_hub_download(**wanted, local_files_only=True))
        except FileNotFoundError:
            _check_online()
            log.info("--weights: fetching %s of %s", file, repo)
            return Path(huggingface_hub.hf_hub_download(**wanted, etag_timeout=_HUB_SECONDS))
    except Exception as error:
        # The hub's client raises the errors of whichever HTTP library it was built on.
        what = f"the weights of {name} are not here and cannot be fetched ({_one_line(error)})"
        todo = f"download {file} of {repo} from the Hugging Face hub and pass --weights FILE"
        raise ResourceError("--weights", what, todo) from None


def is_at_hand(name: str) -> bool:
    """Whether the weights that timm publishes for a model are in the hub's cache here."""
    import huggingface_hub

    wanted = None if is_video_model(name) else _hub_place(name)
    return wanted is not None and isinstance(huggingface_hub.try_to_load_from_cache(**wanted), str)


def _hub_place(name: str) -> dict[str, Any] | None:
    """Repository, file and revision of a model's weights on the hub, if timm publishes any."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    repo, _, revision = config.hf_hub_id.partition("@")
    file = config.hf_hub_filename or "model.safetensors"
    return {
        "repo_id": repo,
        "filename": _SAFE_NAMES.get(file, file),
        "revision": revision or None,
    }


def _check_online() -> None:
    """Ask the hub once, because its client would retry for minutes where there is no network."""
    from huggingface_hub import constants, utils

    for name in ("LOSA_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in _TRUE:
            raise ConnectionError(f"{name} is set")
    client: Any = utils
    client.get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)


def warn_of_random(name: str) -> None:
    """Say what random weights are good for."""
    log.warning(
        "--weights random: %s is NOT PRETRAINED, its features mean nothing; for tests and speed",
        name,
    )


def _random_model(name: str) -> nn.Module:
    """A model with seeded random weights; the global generator is left as it was."""
    warn_of_random(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return _empty_model(name, None)


def _empty_model(name: str, img_size: tuple[int, int] | None) -> nn.Module:
    """A timm model without a classifier, not yet loaded."""
    sized: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **sized)
    return model


def _loaded_model(name: str, tensors: Tensors, file: Path) -> nn.Module:
    """A model at its weights' own size that holds exactly these weights."""
    with torch.device("meta"):
        img_size = _native_size(_empty_model(name, None), tensors)
        model = _empty_model(name, img_size)
    wanted = model.state_dict()
    state = _converted(model, tensors, file)
    check_tensors(state, wanted, file)
    state = {key: tensor.to(wanted[key].dtype, copy=True) for key, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    if any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers())):
        # Buffers that no file holds (rotary tables) exist only in a model built in earnest.
        model = _empty_model(name, img_size)
        model.load_state_dict(state, strict=True)
    return model


def _native_size(model: Any, tensors: Tensors) -> tuple[int, int] | None:
    """Image size of the weights' position grid where it is not the model's usual one."""
    found, usual = tensors.get("pos_embed"), getattr(model, "pos_embed", None)
    if found is None or usual is None or found.ndim != usual.ndim or found.shape == usual.shape:
        return None
    rows, columns = model.patch_embed.patch_size
    own_prefix = usual.shape[1] - model.patch_embed.num_patches
    for prefix in (own_prefix, 1, 0):
        patches = found.shape[1] - prefix
        side = math.isqrt(max(0, patches))
        if side and side * side == patches:
            return side * rows, side * columns
    return None


def _converted(model: nn.Module, tensors: Tensors, file: Path) -> Tensors:
    """Tensors under the model's own names, by timm's checkpoint filter, without a classifier."""
    module = sys.modules[type(model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    state = clean_state_dict(tensors)
    try:
        state = convert(state, model) if convert is not None else state
    except Exception as error:  # a filter meets a stranger's file with any exception
        what = f"does not hold weights of this model ({_one_line(error)})"
        raise InputError(file, what, "give the weights that belong to --model") from None
    config: Any = getattr(model, "pretrained_cfg", {})
    names = config.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((names,) if isinstance(names, str) else names))
    return {key: tensor for key, tensor in state.items() if not key.startswith(heads)}


def check_tensors(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    """Every tensor that the model has, no other, of its shape, and finite.

    Raises:
        InputError: otherwise; the first that differ are named.
    """
    wrong = {
        "lacks": [key for key in wanted if key not in state],
        "has unknown": [key for key in state if key not in wanted],
    }
    common = [key for key in wanted if key in state]
    wrong["has the wrong shape for"] = [
        f"{key} {tuple(state[key].shape)} (not {tuple(wanted[key].shape)})"
        for key in common
        if state[key].shape != wanted[key].shape
        or state[key].is_floating_point() != wanted[key].is_floating_point()
    ]
    if not any(wrong.values()):
        wrong["holds values that are not finite in"] = [
            key for key in common if not bool(torch.isfinite(state[key]).all())
        ]
    said = [f"{what} {_first(keys)}" for what, keys in wrong.items() if keys]
    if said:
        raise InputError(file, ", ".join(said), "give the weights that belong to --model")


def _first(keys: list[str]) -> str:
    """The first three of some keys."""
    shown = 3
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more


def _one_line(error: BaseException) -> str:
    """An exception's text without line breaks, cut to what fits a line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
