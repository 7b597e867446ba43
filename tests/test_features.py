"""Claims of losa.features."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.errors import UsageError
from losa.features import (
    AXES,
    STORE_DTYPES,
    FeatureSpec,
    StoreDtype,
    TokenGrid,
    resolve_taps,
)
from tests.house_rules import ROOT

NUMPY = {
    "float16": np.float16,
    "int8": np.int8,
    "bfloat16": np.uint16,
    "float32": np.float32,
}


def test_every_axis_is_one_letter() -> None:
    assert all(len(letter) == 1 and letter.islower() for letter in AXES)


def test_tokens_are_prefix_and_patches_of_every_time_step() -> None:
    grid = TokenGrid(height=3, width=5, time=2, prefix=4)
    patches = np.zeros((2, 3, 5)).size
    assert grid.num_patches == patches
    assert grid.num_tokens == 4 + patches


@pytest.mark.parametrize("dtype", STORE_DTYPES)
def test_bytes_are_those_of_a_numpy_array_of_the_same_shape(dtype: StoreDtype) -> None:
    spec = FeatureSpec("toy", (0, 2, 5), TokenGrid(4, 3, prefix=1), 24, dtype)
    record = np.zeros(spec.shape[1:], NUMPY[dtype])
    sample = np.zeros(spec.shape, NUMPY[dtype])
    assert spec.shape == (3, 13, 24)
    scales = np.zeros((3, 13) if dtype == "int8" else 0, np.float16)
    assert spec.record_bytes == record.nbytes
    assert spec.sample_bytes == sample.nbytes + scales.nbytes
    assert 3 * spec.scale_bytes == scales.nbytes


@pytest.mark.parametrize("taps", [(), (3, 1), (1, 1), (-1, 2)])
def test_spec_rejects_taps_that_are_not_strictly_ascending(taps: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="strictly ascending"):
        FeatureSpec("toy", taps, TokenGrid(2, 2), 8)


def test_spec_rejects_an_unknown_dtype() -> None:
    # In a process of its own: in this one the runtime checks of tests would speak first.
    code = "from losa.features import *; FeatureSpec('toy', (0,), TokenGrid(2, 2), 8, 'int4')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert "UsageError: --store-dtype: 'int4' is unknown; use one of ('float16'" in last


def test_a_spec_comes_back_from_its_json() -> None:
    spec = FeatureSpec("toy", (0, 7), TokenGrid(2, 3, time=4, prefix=5), 8, "bfloat16")
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_a_subset_of_taps_keeps_everything_else() -> None:
    spec = FeatureSpec("toy", (0, 3, 7), TokenGrid(2, 2), 8, "float32")
    assert spec.with_taps((3,)) == FeatureSpec("toy", (3,), TokenGrid(2, 2), 8, "float32")


@pytest.mark.parametrize(
    ("text", "depth", "taps"),
    [
        ("all", 3, (0, 1, 2)),
        ("last", 12, (11,)),
        ("last:4", 12, (8, 9, 10, 11)),
        ("every:4", 12, (3, 7, 11)),
        ("every:5", 12, (1, 6, 11)),
        ("3,7,11", 12, (3, 7, 11)),
        ("11, 3,7", 12, (3, 7, 11)),
        ("auto", 6, (1, 3, 5)),
        ("auto", 12, (1, 3, 5, 7, 9, 11)),
        ("auto", 24, (2, 5, 8, 11, 14, 17, 20, 23)),
        ("auto", 40, (3, 7, 11, 15, 19, 23, 27, 31, 35, 39)),
    ],
)
def test_taps_are_named_as_the_contract_says(text: str, depth: int, taps: tuple[int, ...]) -> None:
    assert resolve_taps(text, tuple(range(depth))) == taps


def test_taps_of_a_store_are_counted_among_those_it_has() -> None:
    have = (1, 3, 5, 7, 9, 11)
    assert resolve_taps("every:2", have) == (3, 7, 11)
    assert resolve_taps("last:2", have) == (9, 11)
    assert resolve_taps("3,9", have) == (3, 9)


@given(depth=st.integers(1, 60), step=st.integers(1, 60))
def test_every_counts_back_from_the_last(depth: int, step: int) -> None:
    if step > depth:
        with pytest.raises(UsageError):
            resolve_taps(f"every:{step}", tuple(range(depth)))
        return
    want = tuple(tap for tap in range(depth) if (depth - 1 - tap) % step == 0)
    assert resolve_taps(f"every:{step}", tuple(range(depth))) == want


@pytest.mark.parametrize(
    "text", ["", "none", "every:", "every:0", "last:13", "3,3", "12", "-1", "1;2", "every:x", "1.5"]
)
def test_what_names_no_taps_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(UsageError, match=r"does not name taps of 0\.\.11; use all, auto"):
        resolve_taps(text, tuple(range(12)))


@pytest.mark.parametrize("text", ["9" * 5000, "last:" + "9" * 5000, "every:" + "9" * 5000])
def test_a_tap_of_thousands_of_digits_is_refused_in_a_short_line(text: str) -> None:
    with pytest.raises(UsageError, match="does not name taps") as caught:
        resolve_taps(text, tuple(range(12)))
    assert len(str(caught.value)) < 300
