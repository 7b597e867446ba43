from __future__ import annotations

import hashlib
import logging
import pickle
import struct
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from losa.errors import InputError, ResourceError
from losa.extract.weights import build_with_weights, hub_file, read_tensors, tensors_digest
from tests.extract.drawn_once import DRAW

TINY = "vit_tiny_patch16_224.augreg_in21k"


def tiny_weights(**options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    model = timm.create_model("vit_tiny_patch16_224", **{"num_classes": 0, **options})
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(tiny_weights(), file)
    return file


def test_the_digest_is_a_hash_of_sorted_names_dtypes_shapes_and_bytes() -> None:
    tensors = {"b": torch.arange(6, dtype=torch.int64).view(2, 3), "a": torch.tensor(1.5)}
    wanted = hashlib.sha256(
        b"a\0float32\0()\0"
        + np.float32(1.5).tobytes()
        + b"b\0int64\0(2, 3)\0"
        + np.arange(6, dtype=np.int64).tobytes()
    )
    assert tensors_digest(tensors) == wanted.hexdigest()
    halves = {"c": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}
    digest = hashlib.sha256(b"c\0bfloat16\0(2,)\0" + b"\x80\x3f\x00\x40").hexdigest()
    assert tensors_digest(halves) == digest


def test_a_file_gives_exactly_its_tensors(tiny: Path) -> None:
    model, digest = build_with_weights(TINY, str(tiny))
    tensors = load_file(tiny)
    assert digest == tensors_digest(tensors)
    state = model.state_dict()
    assert set(state) == set(tensors)
    for name, tensor in tensors.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_loading_agrees_with_timms_own_loading(tiny: Path) -> None:
    model, _ = build_with_weights(TINY, str(tiny))
    wanted = timm.create_model(
        TINY, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(tiny)}
    )
    picture = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(picture), wanted.eval()(picture))


def test_a_classifier_in_the_file_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    with_head = {**load_file(tiny), "head.weight": torch.ones(3, 192), "head.bias": torch.ones(3)}
    save_file(with_head, tmp_path / "head.safetensors")
    _, digest = build_with_weights(TINY, str(tmp_path / "head.safetensors"))
    assert digest == build_with_weights(TINY, str(tiny))[1]


def test_weights_with_a_position_grid_of_their_own_are_loaded_at_it(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    save_file(tiny_weights(img_size=64), file)
    model: Any
    model, digest = build_with_weights(TINY, str(file))
    assert model.patch_embed.img_size == (64, 64)
    assert digest == tensors_digest(load_file(file))


def test_a_model_with_computed_buffers_is_whole(tmp_path: Path) -> None:
    torch.manual_seed(2)
    wanted = timm.create_model("eva02_tiny_patch14_224", num_classes=0).eval()
    save_file(wanted.state_dict(), tmp_path / "eva.safetensors")
    model, _ = build_with_weights("eva02_tiny_patch14_224", str(tmp_path / "eva.safetensors"))
    picture = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(picture), wanted(picture))


def test_random_weights_are_seeded_and_said_loudly(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losa.extract.weights._random_model", DRAW)
    state = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        _, digest = build_with_weights(TINY, "random")
    assert "NOT PRETRAINED" in caplog.text
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(5)
    assert build_with_weights(TINY, "random")[1] == digest


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".npz"])
def test_a_pickle_is_refused_and_never_loaded(tmp_path: Path, suffix: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    file = tmp_path / f"evil{suffix}"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"is not a .safetensors file, and losa unpickles nothing"):
        build_with_weights(TINY, str(file))
    file.rename(tmp_path / "evil.safetensors")
    with pytest.raises(InputError, match="is not readable as safetensors"):
        build_with_weights(TINY, str(tmp_path / "evil.safetensors"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]"],
    ids=["empty", "cut", "lying-length", "list"],
)
def test_a_damaged_safetensors_file_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"bad.safetensors: is not readable as safetensors"):
        read_tensors(file)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing or no regular file"):
        build_with_weights(TINY, str(tmp_path / "none.safetensors"))


def changed(tiny: Path, file: Path, change: str) -> Path:
    tensors = load_file(tiny)
    if change == "lacks":
        for block in range(4):
            del tensors[f"blocks.{block}.norm1.weight"]
    elif change == "extra":
        tensors["blocks.12.norm1.weight"] = torch.ones(192)
    elif change == "shape":
        tensors["norm.weight"] = torch.ones(191)
    elif change == "kind":
        tensors["norm.weight"] = torch.ones(192, dtype=torch.int32)
    else:
        tensors["norm.weight"][3] = float("nan")
    save_file(tensors, file)
    return file


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            "lacks",
            "lacks blocks.0.norm1.weight, blocks.1.norm1.weight, blocks.2.norm1.weight and 1 more",
        ),
        ("extra", "has unknown blocks.12.norm1.weight"),
        ("shape", r"has the wrong shape for norm.weight \(191,\) \(not \(192,\)\)"),
        ("kind", "has the wrong shape for norm.weight"),
        ("nan", "holds values that are not finite in norm.weight"),
    ],
)
def test_weights_of_another_model_name_the_first_keys(
    tiny: Path, tmp_path: Path, change: str, what: str
) -> None:
    file = changed(tiny, tmp_path / "other.safetensors", change)
    with pytest.raises(InputError, match=f"other.safetensors: {what}.*; give the weights that"):
        build_with_weights(TINY, str(file))


@pytest.mark.parametrize("variable", ["LOSA_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_the_error_says_what_to_fetch_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(ResourceError) as caught:
        build_with_weights(TINY, None)
    assert time.monotonic() - started < 5
    what = f"the weights of {TINY} are not here and cannot be fetched ({variable} is set)"
    todo = f"download model.safetensors of timm/{TINY} from the Hugging Face hub"
    assert str(caught.value) == f"--weights: {what}; {todo} and pass --weights FILE"


def test_a_hub_that_cannot_be_reached_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LOSA_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(ResourceError, match="cannot be fetched"):
        hub_file(TINY)
    assert time.monotonic() - started < 15


def test_weights_in_the_cache_need_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Path
) -> None:
    repository = tmp_path / f"models--timm--{TINY}"
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee" / "model.safetensors").symlink_to(tiny)
    monkeypatch.setenv("LOSA_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert build_with_weights(TINY, None)[1] == build_with_weights(TINY, str(tiny))[1]


def test_a_model_without_published_weights_says_so() -> None:
    with pytest.raises(ResourceError, match="timm publishes no weights for vit_giant"):
        hub_file("vit_giant_patch14_224.untrained")
