"""Claims of losa.verbs: every verb of a store, and what it changes without and with --yes."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from losa.store import layout
from losa.store.inspect import watch_store
from tests.command import Losa
from tests.store.build import begin_store, fill_store, small_plan, small_store, tree
from tests.store.elsewhere import foreign_claim

SHARD = layout.tokens_object("train", 3, 1)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("verbs") / "s.zarr")


@pytest.fixture
def store(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "s.zarr"))


def test_a_sound_store_is_said_to_be_sound(losa: Losa, store: Path) -> None:
    for flags in ([], ["--quick"], ["--deep"]):
        found = losa("verify", store, *flags)
        assert (found.code, found.value["sound"], found.value["problems"]) == (0, True, [])


def test_damage_is_named_and_costs_exit_code_4(losa: Losa, store: Path) -> None:
    os.truncate(store / SHARD, 7)
    found = losa("verify", store, "--quick")
    assert found.code == 4
    assert [problem["path"] for problem in found.value["problems"]] == [SHARD]
    assert f"{SHARD}: is 7 bytes, not 612; see what losa repair would do" in found.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--quick", "--deep"], "--quick: does not go with --deep"),
        (["--images", "x"], "--images: needs --recompute"),
        (["--weights", "x"], "--weights: needs --recompute"),
        (["--seed", "0"], "--seed: needs --recompute"),
        (["--device", "cpu"], "--device: needs --recompute"),
        (["--recompute", "0"], "--recompute"),
        (["--recompute", "1", "--images", "/none"], "--images: /none is no folder"),
    ],
)
def test_flags_of_verify_that_do_not_go_together_are_refused(
    losa: Losa, store: Path, flags: list[str], message: str
) -> None:
    found = losa("verify", store, *flags)
    assert found.code == 2
    assert message in found.err


FAR = {"path": "a.png", "tap": 3, "relative_l2": 0.5}
GONE = {"path": "b.png", "reason": "is missing"}


@pytest.mark.parametrize(
    ("failures", "text"),
    [
        ([FAR], "1 of 4 rows differ (worst relative L2 0.5); check weights, preprocessing and"),
        ([GONE], "1 of 4 rows could not be compared (b.png: is missing); check --images, see"),
        ([GONE, FAR], "(worst relative L2 0.5), 1 of 4 rows could not be compared (b.png: is mis"),
    ],
)
def test_rows_that_differ_and_rows_that_are_gone_are_told_apart(
    losa: Losa,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    failures: list[dict[str, object]],
    text: str,
) -> None:
    lost = [item for item in failures if "reason" in item]
    worst = 0.5 if FAR in failures else None
    found = {"rows": 4, "failed": len(failures), "not_compared": len(lost), "worst": worst}
    answer = {**found, "within": False, "failures": failures}
    monkeypatch.setattr("losa.extract.recompute.recompute_rows", lambda _: answer)
    result = losa("verify", store, "--recompute", 4)
    assert result.code == 5
    assert text in result.err
    assert result.value["recomputed"] == answer


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "{}"),
        ("verify", "{}"),
        ("repair", "{}"),
        ("gc", "{}"),
        ("diff", "a.zarr", "{}"),
        ("diff", "{}", "a.zarr"),
        ("export", "{}", "--out", "a.h5"),
        ("import", "a.h5", "--store", "{}"),
        ("extract", "--model", "m", "--dataset", "d", "--store", "{}"),
        ("adapt", "--store={}"),
        ("evaluate", "--run", "r", "--store", "{}"),
        ("predict", "--run", "r", "--store", "{}", "a.png"),
    ],
)
def test_a_url_is_no_store_of_the_command_line(losa: Losa, words: tuple[str, ...]) -> None:
    result = losa(*(word.format("s3://bucket/photos.zarr") for word in words))
    assert (result.code, result.out) == (2, "")
    assert "--store: URLs are read by losa.open_store from Python only; " in result.err


def test_a_url_in_a_configuration_file_is_refused_the_same(losa: Losa, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("store: s3://bucket/photos.zarr\n")
    result = losa("adapt", "--config", tmp_path / "c.yaml")
    assert result.code == 2
    assert "--store: URLs are read" in result.err


def test_repair_changes_nothing_without_yes(losa: Losa, store: Path) -> None:
    (store / SHARD).unlink()
    before = tree(store)
    found = losa("repair", store)
    assert (found.code, found.value["done"]) == (0, False)
    assert found.value["actions"]
    assert "nothing was changed; give --yes" in found.err
    assert tree(store) == before


def test_repair_and_extraction_and_gc_give_back_the_store(
    losa: Losa, store: Path, sealed: Path
) -> None:
    (store / SHARD).unlink()
    (store / "train/sample/label/c.0").write_bytes(b"no labels")
    assert losa("repair", store, "--yes").value["done"] is True
    assert losa("verify", store).code == 4
    fill_store(store, small_plan())
    assert losa("verify", store).code == 0
    assert losa("gc", store).value["removed"] == []
    kept = losa("gc", store, "--older-than", 0)
    assert kept.value["removed"]
    assert kept.value["done"] is False
    assert "nothing was removed; give --yes" in kept.err
    assert losa("gc", store, "--older-than", 0, "--yes").value["done"] is True
    assert tree(store) == tree(sealed)


def test_repair_of_a_sound_store_does_nothing(losa: Losa, store: Path, sealed: Path) -> None:
    assert losa("repair", store, "--yes").value["actions"] == []
    assert tree(store) == tree(sealed)


def test_equal_stores_differ_in_nothing(losa: Losa, store: Path, sealed: Path) -> None:
    found = losa("diff", store, sealed)
    assert (found.code, found.value["identical"]) == (0, True)


def test_other_features_are_exit_code_5_unless_within_rtol(
    losa: Losa, tmp_path: Path, sealed: Path
) -> None:
    other = small_store(tmp_path / "t.zarr", small_plan(dtype="float32"))
    found = losa("diff", sealed, other)
    assert found.code == 5
    assert found.value["identical"] is False
    worst = max(row["relative_l2"] for row in found.value["taps"])
    assert 0 < worst < 1e-3
    assert losa("diff", sealed, other, "--rtol", 2 * worst).code == 0


def test_a_store_goes_out_to_hdf5_and_comes_back_the_same(
    losa: Losa, store: Path, sealed: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.h5"
    assert losa("export", store, "--out", file).code == 0
    assert losa("export", store, "--out", file).code != 0
    assert losa("export", store, "--out", file, "--overwrite").code == 0
    assert losa("import", file, "--store", tmp_path / "t.zarr", "--durability", "none").code == 0
    assert tree(tmp_path / "t.zarr") == tree(sealed)


def test_some_taps_and_splits_go_out_alone(losa: Losa, store: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.h5"
    assert losa("export", store, "--out", file, "--taps", "3", "--split", "val").code == 0
    assert losa("import", file, "--store", tmp_path / "t.zarr").code == 0
    found = losa("inspect", tmp_path / "t.zarr").value
    assert (found["features"]["taps"], list(found["splits"])) == ([3], ["val"])


def test_an_unknown_durability_is_refused(losa: Losa, tmp_path: Path) -> None:
    found = losa("import", tmp_path / "x.h5", "--store", tmp_path / "y", "--durability", "half")
    assert found.code == 2
    assert "--durability: 'half' is unknown; give full or none" in found.err


def test_a_watch_ends_with_the_seal_or_ctrl_c(
    losa: Losa, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert losa("inspect", store, "--watch").value["sealed"]

    def interrupt(_: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    watched = partial(watch_store, sleep=interrupt)
    monkeypatch.setattr("losa.store.inspect.watch_store", watched)
    begin_store(tmp_path / "t.zarr", small_plan())
    foreign_claim(tmp_path / "t.zarr")
    found = losa("inspect", tmp_path / "t.zarr", "--watch")
    assert (found.code, found.value["sealed"]) == (0, False)
    assert "shard 0 of train: process 7 on elsewhere, beat " in found.err
