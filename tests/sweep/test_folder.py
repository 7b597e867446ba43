"""A sweep's folder: begun once, joined by the same sweep only, results written once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losa.errors import MismatchError, StoreError, UsageError
from losa.sweep.folder import SweepFolder, claim_of, read_recorded, recorded, results_of
from losa.sweep.strategy import parse_strategy
from losa.sweep.trials import base_config
from tests.adapt.memory_store import MemoryStore
from tests.sweep.tiny import BASE, FILE, begun, result

GRID: dict[str, Any] = {"grid": {"rank": [1, 2]}}


def test_the_same_sweep_joins_wherever_its_store_lies_and_however_fast_it_reads(
    store: MemoryStore, tmp_path: Path
) -> None:
    begun(store, tmp_path, GRID)
    before = (tmp_path / "sweep.yaml").read_bytes()
    begun(store, tmp_path, {**GRID, "base": {"prefetch": 7}})
    assert (tmp_path / "sweep.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"grid": {"rank": [1, 3]}}, "grid.rank: "),
        ({**GRID, "seeds": [0]}, "seeds: "),
        ({**GRID, "base": {"lr": 0.5}}, "base.lr: 0.5 / 0.01"),
    ],
)
def test_another_sweep_is_refused_and_what_differs_is_named(
    store: MemoryStore, tmp_path: Path, sections: dict[str, Any], told: str
) -> None:
    begun(store, tmp_path, GRID)
    with pytest.raises(MismatchError, match=told):
        begun(store, tmp_path, sections)


def test_another_store_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    begun(store, tmp_path, GRID)
    store.store_id = "6" * 64
    with pytest.raises(MismatchError, match="store_id"):
        begun(store, tmp_path, GRID)


def test_what_is_recorded_gives_the_same_sweep_again(store: MemoryStore, tmp_path: Path) -> None:
    _, trials = begun(store, tmp_path, {**GRID, "seeds": [0, 1]})
    values = read_recorded(tmp_path)
    assert values.pop("store_id") == store.store_id
    assert values.pop("store") == "memory.zarr"
    _, again = begun(store, tmp_path / "again", values)
    assert [trial.digest for trial in again] == [trial.digest for trial in trials]


def test_a_folder_without_a_sweep_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="give --config, or the --out of a sweep"):
        read_recorded(tmp_path)


def test_a_file_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    sections = {"list": [{"lr": 1.0 + number} for number in range(9_000)]}
    base = base_config(parse_strategy({**sections, "base": dict(BASE)}, FILE), Path("s.zarr"))
    with pytest.raises(UsageError, match="at most 65,536 are read"):
        SweepFolder(tmp_path).begin_or_join(recorded(sections, base, "5" * 64))


def test_the_first_result_of_a_trial_stays(store: MemoryStore, tmp_path: Path) -> None:
    folder, trials = begun(store, tmp_path, GRID)
    digest = trials[0].digest
    assert folder.result(digest) is None
    assert folder.finish(result(digest=digest))
    assert not folder.finish(result(digest=digest, epochs=9))
    assert folder.result(digest) == result(digest=digest)
    assert SweepFolder(tmp_path).result(digest) == result(digest=digest)
    assert results_of(folder, trials) == [result(digest=digest)]


def test_marks_and_suggestions_are_said_once(store: MemoryStore, tmp_path: Path) -> None:
    folder, trials = begun(store, tmp_path, GRID)
    digest = trials[0].digest
    assert folder.mark(digest, 3) is None
    assert folder.suggestion(7) is None
    for value in ({"a": 1}, {"a": 2}):
        folder.set_mark(digest, 3, value)
        folder.set_suggestion(7, value)
    assert folder.mark(digest, 3) == folder.suggestion(7) == {"a": 1}
    assert folder.mark(digest, 9) is None


def test_two_processes_cannot_claim_one_trial(store: MemoryStore, tmp_path: Path) -> None:
    folder, trials = begun(store, tmp_path, GRID)
    ours, theirs = folder.claims(), folder.claims()
    assert ours.take(claim_of(trials[0]))
    assert not theirs.take(claim_of(trials[0]))
    assert theirs.take(claim_of(trials[1]))
    ours.close()
    assert theirs.take(claim_of(trials[0]))
    theirs.close()
