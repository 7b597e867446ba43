"""Claims of losa.live.tapsearch, on features in which somebody planted the answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from losa.live.ridge import Probe, kernel, probe
from losa.live.tapsearch import TapSet, Task, advise, best_of, search, standard_error

BLOCKS, TRAINED, ROWS = 6, 160, 200


def task(planted: Mapping[int, np.ndarray], labels: np.ndarray) -> Task:
    """Noise in every block, and some blocks' first channels replaced by what is planted."""
    draw = np.random.default_rng(0)
    blocks = draw.normal(size=(BLOCKS, ROWS, 8)).astype(np.float32)
    for block, values in planted.items():
        blocks[block, :, : values.shape[1]] = values + 0.1 * blocks[block, :, : values.shape[1]]
    kernels = torch.stack([kernel(torch.from_numpy(block), TRAINED) for block in blocks])
    return Task(kernels, torch.from_numpy(labels), TRAINED)


def searched(found: Task) -> list[TapSet]:
    return search(found, progress=lambda *_: None)


def test_the_probe_on_several_taps_is_that_of_the_mean_of_their_kernels() -> None:
    labels = np.arange(ROWS) % 4
    found = task({3: np.eye(4)[labels]}, labels)
    before = found.kernels.numpy().copy()
    mean = torch.from_numpy(before[[1, 3, 5]].astype(np.float64).mean(0).astype(np.float32))
    wanted = probe(mean, found.labels, TRAINED, penalties=(0.1,))
    torch.testing.assert_close(found.probe((1, 3, 5), 0.1).errors, wanted.errors)
    np.testing.assert_array_equal(found.kernels.numpy(), before)


def test_the_only_block_that_carries_the_label_is_advised() -> None:
    labels = np.arange(ROWS) % 4
    sets = searched(task({3: 3 * np.eye(4)[labels]}, labels))
    assert advise(sets, 0.25, BLOCKS).chosen.taps == (3,)


def test_two_blocks_that_complete_each_other_are_both_found() -> None:
    # Four classes: block 1 tells the pairs apart, block 4 the two of a pair.
    labels = np.arange(ROWS) % 4
    sets = searched(task({1: 3 * np.eye(2)[labels // 2], 4: 3 * np.eye(2)[labels % 2]}, labels))
    advice = advise(sets, 0.25, BLOCKS)
    assert advice.chosen.taps == (1, 4)
    assert advice.chosen.name == "1,4"
    assert max(one.top1 for one in sets if len(one.taps) == 1) < 0.75 < advice.chosen.top1


def test_every_set_is_probed_once_and_all_taps_are_among_them() -> None:
    labels = np.arange(ROWS) % 4
    told = []
    sets = search(task({}, labels), progress=lambda done, total: told.append((done, total)))
    taps = [one.taps for one in sets]
    assert len(set(taps)) == len(taps)
    assert {(tap,) for tap in range(BLOCKS)} | {tuple(range(BLOCKS))} <= set(taps)
    assert [done for done, _ in told] == list(range(1, told[0][1] + 1))


def tap_set(taps: tuple[int, ...], hits: list[int], errors: float = 0.1) -> TapSet:
    """A set whose probe was right so many times in blocks of samples."""
    right = torch.cat([torch.arange(100) < count for count in hits])
    probe = Probe(right, torch.full((len(right),), errors, dtype=torch.float64), 1.0, len(right))
    return TapSet(",".join(map(str, taps)), taps, probe)


def test_the_set_of_least_error_that_there_is_room_for_is_advised() -> None:
    sets = [tap_set((0,), [90], 0.3), tap_set((1, 2), [89], 0.2), tap_set((0, 1, 2), [91], 0.1)]
    chosen = [advise(sets, 0.5, room).chosen for room in (0, 1, 2, 3)]
    assert chosen == [sets[0], sets[0], sets[1], sets[2]]


def test_of_fewest_taps_a_set_within_one_standard_error_is_named_and_beyond_is_not() -> None:
    best = tap_set((0, 1, 2), [90] * 10)
    near = tap_set((0, 1), [90] * 9 + [86])
    far = tap_set((0,), [88] * 10)
    assert advise([best, near, far], 0.5, 3).fewest is near
    assert advise([best, far], 0.5, 3).fewest is best


def test_of_equally_small_sets_the_better_one_is_named() -> None:
    sets = [tap_set((0,), [90] * 9 + [88]), tap_set((1,), [90] * 10), tap_set((0, 1), [90] * 10)]
    assert advise(sets, 0.5, 2).fewest is sets[1]


def test_a_budget_leaves_the_best_of_what_it_can_hold() -> None:
    sets = [tap_set((0,), [50], 0.3), tap_set((1,), [60], 0.2), tap_set((0, 1), [90])]
    advice = advise(sets, 0.2, 1)
    assert advice.chosen is advice.fewest is sets[1]
    assert not advice.is_within
    assert abs(advice.behind - 0.3) < 1e-12


def test_where_no_probe_beats_the_commonest_class_the_squared_error_decides() -> None:
    sets = [tap_set((0,), [75], 0.2), tap_set((1,), [74], 0.1), tap_set((0, 1), [75], 0.1)]
    advice = advise(sets, 0.75, 2)
    assert advice.criterion == "squared error"
    assert advice.chosen is sets[1]


def test_among_equally_right_sets_the_one_of_least_error_is_best() -> None:
    sets = [tap_set((0,), [80], 0.2), tap_set((1,), [80], 0.1)]
    assert best_of(sets) is sets[1]


def test_the_standard_error_is_that_of_a_binomial_share() -> None:
    hits = torch.arange(200) < 140
    assert abs(standard_error(hits) - np.sqrt(0.7 * 0.3 / 200)) < 1e-12
