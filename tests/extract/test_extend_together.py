"""Claims of losa.extract.extend: several processes, damage, and plans of strangers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from losa.errors import LockedError, StoreError
from losa.extract.extraction import Extraction
from losa.extract.run import extract
from losa.store import layout, open_store
from losa.store.extending import begin_extension, extension_of
from losa.store.repair import repair_store
from losa.store.verify import verify_store
from tests.extract.extending import StopError, extending, stop_after
from tests.extract.picture_folder import tiny_config
from tests.store.build import small_plan, small_store, tree

pytestmark = pytest.mark.usefixtures("quick_backbones")


def test_two_processes_that_finish_one_extension_both_succeed(
    store: Path, pictures: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = extending(pictures, store, taps="0", split=None)
    seal = Extraction.seal

    def second(extraction: Extraction) -> str:
        monkeypatch.setattr(Extraction, "seal", seal)
        assert extract(config)["computed_rows"] == 0  # the other process is quicker
        return seal(extraction)

    monkeypatch.setattr(Extraction, "seal", second)
    result = extract(config)
    assert tree(store) == tree(large)
    assert result["store_id"] == open_store(large).store_id
    assert result["computed_rows"] == 27


def test_who_loses_the_race_of_beginning_an_extension_joins_the_winner(
    store: Path, pictures: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*arguments: Any) -> None:
        begin_extension(*arguments, durable=False)  # the winner's
        begin_extension(*arguments, durable=False)

    monkeypatch.setattr("losa.extract.extend.begin_extension", lose)
    extract(extending(pictures, store, taps="0", split=None))
    assert tree(store) == tree(large)


def test_an_error_that_no_other_process_has_made_good_stays_one(
    store: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any) -> None:
        raise LockedError(store, "is taken")

    monkeypatch.setattr("losa.extract.extend.begin_extension", locked)
    with pytest.raises(LockedError, match="is taken"):
        extract(extending(pictures, store, taps="0"))


def test_an_extension_whose_inherited_file_is_damaged_is_finished_after_a_repair(
    pictures: Path, tmp_path: Path
) -> None:
    store, whole = tmp_path / "s.zarr", tmp_path / "one/s.zarr"
    extract(tiny_config(pictures, store, split=("train",)))
    config, extended = extending(pictures, store, taps="0"), extension_of(store)
    with pytest.raises(StopError):
        extract(config, progress=stop_after(6, "extract"))
    victims = [extended / layout.tokens_object("train", 2, shard) for shard in (0, 3)]
    for victim in victims:
        data = bytearray(victim.read_bytes())
        data[7] ^= 1
        victim.unlink()
        victim.write_bytes(data)
    assert {("train", 0), ("train", 3)} <= set(repair_store(extended, act=True).extract)
    extract(config)
    extract(tiny_config(pictures, whole, split=("train",), taps="0,2,11"))
    kept = {name: data for name, data in tree(store).items() if "quarantine" not in name}
    assert kept == tree(whole)
    assert verify_store(store) == []


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": {"model": "toy"}},
        {"backbone": {"tokens": 7}},
        {"preprocessing": {}},
        {"preprocessing": {"img_size": 32}},
        {"preprocessing": {"img_size": []}},
        {"preprocessing": {"img_size": ["32", "32"]}},
    ],
)
def test_a_plan_that_does_not_say_what_an_extension_needs_is_refused(
    pictures: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    store = small_store(tmp_path / "s.zarr", replace(small_plan(), **change))
    with pytest.raises(StoreError, match=r"plan\.json: does not say") as caught:
        extract(extending(pictures, store, taps="0"))
    assert caught.value.exit_code == 4
