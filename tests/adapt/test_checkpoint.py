from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from losa.adapt.adaptor import Adaptor
from losa.adapt.checkpoint import (
    AdaptorCard,
    load_adaptor,
    load_card,
    load_weights,
    save_card,
    save_weights,
)
from losa.adapt.options import SideOptions
from losa.adapt.registry import build_adaptor
from losa.adapt.snapshot import Snapshot, save_snapshot
from losa.errors import StoreError
from losa.features import FeatureSpec, TokenGrid

SPEC = FeatureSpec("tiny", (1, 3), TokenGrid(2, 2, prefix=1), 8)
CARD = AdaptorCard(
    adaptor="losa",
    options=SideOptions(rank=2, token_rank=3, residual="sum", dropout=0.1),
    spec=SPEC,
    classes=("ant", "bee", "çédille"),
    store_id="ab" * 32,
    backbone={"model": "tiny", "tokens": "all"},
    preprocessing={"size": [32, 32], "mean": [0.5, 0.5, 0.5]},
    config_digest="cd" * 32,
    order_seed=7,
    listings={"train": "ef" * 32},
    numerics={"device": "cpu", "autocast": None, "batch_size": 32},
    exponents=(0, 2),
)

ONES = (1.0,) * 8
INT8 = dataclasses.replace(
    CARD,
    spec=dataclasses.replace(SPEC, dtype="int8"),
    exponents=(0, 0),
    quantiser=(((0.0,) * 8, (0.1, 2.0, 1e-6, 3.0, 4.0, 5.0, 6.0, 7.5)), ((-2.5,) * 8, (1.0,) * 8)),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run: adaptor.json and best.safetensors."""
    save_card(tmp_path, CARD)
    save_weights(tmp_path / "best.safetensors", trained(), CARD.metadata)
    return tmp_path


def trained(seed: int = 0) -> Adaptor:
    torch.manual_seed(seed)
    adaptor = build_adaptor(CARD.adaptor, SPEC, len(CARD.classes), CARD.options)
    for weight in adaptor.parameters():
        nn.init.normal_(weight)
    adaptor.standardise.load(torch.randn(2, 8), torch.rand(2, 8) + 0.5)
    return adaptor.eval()


def test_a_run_comes_back_to_the_bit(run: Path) -> None:
    adaptor, card = load_adaptor(run)
    planes = torch.randn(2, 4, 5, 8)
    assert card == CARD
    assert not adaptor.training
    assert torch.equal(adaptor(planes), trained()(planes))
    for name, value in trained().state_dict().items():
        assert torch.equal(adaptor.state_dict()[name], value), name


def test_loading_leaves_the_random_numbers_where_they_were(run: Path) -> None:
    before = torch.get_rng_state()
    load_adaptor(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_last_weights_are_loaded_when_asked(run: Path) -> None:
    state = {f"weights/{name}": value for name, value in trained(1).state_dict().items()}
    save_snapshot(run / "last.safetensors", Snapshot(state, {}), CARD.digest)
    adaptor, _ = load_adaptor(run, which="last")
    expected = trained(1).get_parameter("head.linear.weight")
    assert torch.equal(adaptor.get_parameter("head.linear.weight"), expected)


def test_a_run_that_has_not_begun_has_no_last_weights(run: Path) -> None:
    with pytest.raises(StoreError, match=r"last\.safetensors: does not exist"):
        load_adaptor(run, which="last")


@pytest.mark.parametrize(
    "scale", [(), ((0.0, 1.0),) * 2, ((0.0, 1.0), (0.0, 0.0), (0.0, 1.0)), ((0.0, -1.0),) * 3]
)
def test_a_card_of_numbers_has_a_deviation_of_each(scale: tuple[tuple[float, float], ...]) -> None:
    card = dataclasses.replace(CARD, task="numbers", scale=scale)
    with pytest.raises(StoreError, match="scale: is not what numbers have"):
        AdaptorCard.from_json(card.to_json())
    whole = dataclasses.replace(card, scale=((0.0, 1.0),) * 3)
    assert AdaptorCard.from_json(whole.to_json()) == whole


def test_equal_weights_are_equal_files(run: Path, tmp_path: Path) -> None:
    facts = {**CARD.metadata, "epoch": "3", "step": "40", "metric": "0.5"}
    files = {tmp_path / f"{i}.safetensors" for i in range(4)}
    for file in files:
        save_weights(file, trained(), facts)
    assert len({file.read_bytes() for file in files}) == 1


def test_a_card_comes_back_from_its_json() -> None:
    assert AdaptorCard.from_json(json.loads(json.dumps(CARD.to_json()))) == CARD


def test_the_scales_of_int8_channels_come_back_to_the_bit() -> None:
    quantiser = torch.rand(2, 2, 8) + 0.1
    nested = tuple(tuple(map(tuple, tap)) for tap in quantiser.tolist())
    card = dataclasses.replace(INT8, quantiser=nested)
    found = AdaptorCard.from_json(json.loads(json.dumps(card.to_json())))
    assert found == card
    assert torch.equal(torch.tensor(found.quantiser), quantiser)


def test_a_card_without_scales_is_as_it_was_before_int8() -> None:
    assert "quantiser" not in CARD.to_json()


@pytest.mark.parametrize(
    "quantiser",
    [
        (),
        ((ONES, ONES),),
        ((ONES, ONES), (ONES, (1.0,) * 7)),
        ((ONES, ONES), (ONES, (0.0,) * 8)),
        ((ONES, (math.inf,) * 8),) * 2,
        (((-math.inf,) * 8, ONES),) * 2,
    ],
)
def test_an_int8_card_whose_scales_do_not_fit_is_refused(
    quantiser: tuple[tuple[tuple[float, ...], ...], ...],
) -> None:
    value = dataclasses.replace(INT8, quantiser=quantiser).to_json()
    with pytest.raises(StoreError, match="quantiser: is not what int8 has"):
        AdaptorCard.from_json(json.loads(json.dumps(value)))


def test_scales_beside_another_dtype_are_refused() -> None:
    value = dataclasses.replace(INT8, spec=SPEC).to_json()
    with pytest.raises(StoreError, match="quantiser: is not what float16 has"):
        AdaptorCard.from_json(value)


def test_the_digest_changes_with_everything_but_the_version_that_wrote_it() -> None:
    assert dataclasses.replace(CARD, losa="9.9.9").digest == CARD.digest
    other: dict[str, Any] = {
        "adaptor": "linear",
        "options": SideOptions(),
        "spec": SPEC.with_taps((1, 4)),
        "classes": ("ant", "bee"),
        "store_id": "",
        "backbone": {},
        "preprocessing": {},
        "config_digest": "",
        "exponents": (),
        "quantiser": INT8.quantiser,
    }
    digests = {dataclasses.replace(CARD, **{name: other[name]}).digest for name in other}
    assert len(digests | {CARD.digest}) == len(other) + 1


def test_a_dropout_given_as_an_integer_keeps_its_digest(tmp_path: Path) -> None:
    unchecked = SideOptions()
    object.__setattr__(unchecked, "dropout", 0)
    save_card(tmp_path, dataclasses.replace(CARD, options=unchecked))
    assert load_card(tmp_path).digest == dataclasses.replace(CARD, options=SideOptions()).digest
    assert dataclasses.replace(CARD, options=unchecked).digest == load_card(tmp_path).digest


def test_switches_that_came_later_stand_in_a_card_only_where_they_are_used() -> None:
    later = {"start", "share_mixers", "init_scale", "token_mixing", "token_order", "time_rank"}
    later |= {"clip_frames", "clip_stride"}
    assert not later & CARD.to_json()["options"].keys()
    options = dataclasses.replace(
        *(CARD.options,),
        start="first",
        share_mixers=True,
        init_scale=0.5,
        token_mixing="space",
        token_order="time-space",
        time_rank=2,
        clip_frames=4,
        clip_stride=3,
    )
    card = dataclasses.replace(CARD, options=options)
    assert later < card.to_json()["options"].keys()
    assert AdaptorCard.from_json(card.to_json()) == card


def changed(**values: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda card: {**card, **values}


@pytest.mark.parametrize(
    "change",
    [
        changed(format=2),
        changed(format="1"),
        changed(surprise=1),
        changed(classes="ant"),
        changed(classes=[1, 2, 3]),
        changed(adaptor=None),
        changed(options={**CARD.to_json()["options"], "rank": "2"}),
        changed(options={**CARD.to_json()["options"], "rank": 0}),
        changed(options={**CARD.to_json()["options"], "order": "sideways"}),
        changed(options={**CARD.to_json()["options"], "surprise": 1}),
        changed(spec={**CARD.to_json()["spec"], "taps": [3, 1]}),
        changed(spec={**CARD.to_json()["spec"], "channels": 8.5}),
        lambda card: {name: value for name, value in card.items() if name != "spec"},
    ],
)
def test_a_card_that_is_not_ours_to_the_last_key_is_refused(
    run: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    (run / "adaptor.json").write_text(json.dumps(change(CARD.to_json())))
    with pytest.raises(StoreError, match=r"adaptor\.json: ") as caught:
        load_adaptor(run)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100_000])
def test_a_card_that_is_no_json_object_is_refused(run: Path, text: str) -> None:
    (run / "adaptor.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match=r"adaptor\.json: is not"):
        load_adaptor(run)


@pytest.mark.parametrize("name", ["adaptor.json", "best.safetensors"])
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(StoreError, match=f"{name}: does not exist"):
        load_adaptor(run)


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/adaptor\.json: does not exist"):
        load_card(tmp_path / "nowhere")


def flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: data[:0],
        lambda data: data + b"more",
        lambda data: struct.pack("<Q", 1 << 62) + data[8:],
        flipped,
    ],
)
def test_damaged_weights_are_refused(run: Path, damage: Callable[[bytes], bytes]) -> None:
    path = run / "best.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StoreError, match=r"best\.safetensors: is damaged") as caught:
        load_adaptor(run)
    assert caught.value.exit_code == 4


def test_weights_of_another_run_are_refused(run: Path) -> None:
    other = dataclasses.replace(CARD, config_digest="ef" * 32)
    save_weights(run / "best.safetensors", trained(), other.metadata)
    with pytest.raises(StoreError, match=r"best\.safetensors: belongs to another run"):
        load_adaptor(run)


def test_weights_without_a_card_are_refused(run: Path) -> None:
    save_weights(run / "best.safetensors", trained(), {})
    with pytest.raises(StoreError, match="belongs to another run"):
        load_weights(run / "best.safetensors", CARD)


def test_weights_that_do_not_fit_their_card_are_refused(run: Path) -> None:
    save_weights(run / "best.safetensors", nn.Linear(2, 2), CARD.metadata)
    with pytest.raises(StoreError, match=r"best\.safetensors: does not fit adaptor\.json"):
        load_adaptor(run)


def test_an_adaptor_that_this_version_does_not_know_is_refused(run: Path) -> None:
    card = dataclasses.replace(CARD, adaptor="from-the-future")
    save_card(run, card)
    save_weights(run / "best.safetensors", trained(), card.metadata)
    with pytest.raises(StoreError, match="'from-the-future' is unknown"):
        load_adaptor(run)
