"""Claims of losa.extract.calibrate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from losa.errors import InputError
from losa.extract.calibrate import Calibrator


def test_statistics_merged_over_batches_equal_numpys_over_everything() -> None:
    draw = np.random.default_rng(0)
    everything = (draw.normal(300.0, 2.0, (2, 11, 3, 4))).astype(np.float32)
    calibrator = Calibrator(2, 4)
    for start, stop in ((0, 4), (4, 8), (8, 11)):
        planes = [torch.from_numpy(everything[tap, start:stop]) for tap in range(2)]
        calibrator.add(planes, torch.ones(stop - start, dtype=torch.bool))
    found = calibrator.statistics()
    tokens = everything.astype(np.float64).reshape(2, -1, 4)
    np.testing.assert_allclose(found.mean, tokens.mean(1), rtol=1e-6)
    np.testing.assert_allclose(found.std, tokens.std(1), rtol=1e-6)
    np.testing.assert_array_equal(found.absmax, np.abs(everything).max((1, 2)))


def test_unreadable_samples_are_left_out() -> None:
    plane = torch.ones(3, 2, 4)
    plane[1] = 1e9
    calibrator = Calibrator(1, 4)
    calibrator.add([plane], torch.tensor([True, False, True]))
    calibrator.add([plane], torch.tensor([False, False, False]))
    assert calibrator.statistics().absmax.max() == 1.0


def test_nothing_readable_is_an_error() -> None:
    with pytest.raises(InputError, match="no sample could be read"):
        Calibrator(1, 4).statistics()


def test_features_that_are_not_finite_are_an_error() -> None:
    calibrator = Calibrator(1, 4)
    calibrator.add([torch.full((1, 2, 4), torch.inf)], torch.ones(1, dtype=torch.bool))
    with pytest.raises(InputError, match="not finite"):
        calibrator.statistics()
