from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losa.errors import MismatchError, UsageError
from losa.extract.sampling import CENTRE, ClipSampling

COUNTS = st.integers(1, 40)
PLACES = st.integers(0, 255).map(lambda part: Fraction(part, 256))


def oracle(available: int, frames: int, stride: int | None, place: float) -> list[int]:
    """The frames in plain numpy: of a long enough file."""
    number = np.arange(frames)
    if stride is None:
        found = np.floor((number + place) * (available / frames) + 1e-9)
        return [int(index) for index in found]
    starts = available - (frames - 1) * stride
    first = int(np.floor(place * starts + 1e-9))
    return [first + int(index) * stride for index in number]


@given(COUNTS, st.none() | st.integers(1, 7), st.integers(0, 500), PLACES)
def test_frames_are_those_of_the_equation_in_numpy(
    frames: int, stride: int | None, more: int, place: Fraction
) -> None:
    sampling = ClipSampling(frames, stride)
    available = sampling.needed + more

    found = sampling.indices(available, place)

    assert list(found) == oracle(available, frames, stride, float(place))
    assert found[0] >= 0
    assert found[-1] < available


@given(COUNTS, st.none() | st.integers(1, 7), st.integers(1, 40))
def test_a_short_file_repeats_its_last_frame_or_begins_again(
    frames: int, stride: int | None, available: int
) -> None:
    sampling = ClipSampling(frames, stride)
    if available >= sampling.needed:
        return
    wanted = np.arange(frames) * (stride or 1)

    padded = sampling.indices(available)
    looped = ClipSampling(frames, stride, short="loop").indices(available)

    assert padded == tuple(np.minimum(wanted, available - 1))
    assert looped == tuple(wanted % available)


def test_every_start_of_a_clip_is_drawn_equally_often() -> None:
    sampling = ClipSampling(4, stride=2)
    places = [Fraction(part, 1200) for part in range(1200)]

    starts = [sampling.indices(12, place)[0] for place in places]

    assert np.bincount(starts).tolist() == [200] * 6


def test_frames_that_a_backbone_does_not_look_at_are_left_out() -> None:
    whole = ClipSampling(8, stride=3)
    half = ClipSampling(8, stride=3, every=2, offset=1)

    assert half.indices(100) == whole.indices(100)[1::2]
    assert half.indices(5) == whole.indices(5)[1::2]
    assert (half.kept, half.needed) == (4, whole.needed)


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (1, 3), (4, 1), (4, 3), (3, 3)])
def test_test_views_are_every_clip_with_every_crop_and_the_middle_first(
    clips: int, crops: int
) -> None:
    sampling = ClipSampling(8, clips=clips, crops=crops)
    views = [sampling.test_view(view) for view in range(sampling.test_views)]

    times = {Fraction(2 * number + 1, 2 * clips) for number in range(clips)}
    sides = {Fraction(number, crops - 1) for number in range(crops)} if crops > 1 else {CENTRE}
    assert set(views) == {(time, side) for time in times for side in sides}
    assert len(set(views)) == clips * crops
    first = views[0]
    assert abs(first[0] - CENTRE) == min(abs(time - CENTRE) for time in times)
    assert abs(first[1] - CENTRE) == min(abs(side - CENTRE) for side in sides)


def test_one_view_is_the_middle_of_the_file() -> None:
    assert ClipSampling(8).test_view(0) == (CENTRE, CENTRE)
    assert ClipSampling(2, stride=1).indices(10) == (4, 5)


def test_json_brings_back_a_sampling_and_other_rules_are_refused() -> None:
    sampling = ClipSampling(8, 4, "loop", "pyav", 4, 3, 2, 1)

    assert ClipSampling.from_json(sampling.to_json()) == sampling
    for change in ({"rules": 2}, {"short": "stretch"}, {"decoder": "auto"}):
        with pytest.raises(MismatchError, match="frames were chosen under rules"):
            ClipSampling.from_json({**sampling.to_json(), **change})


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"frames": 0}, "--frames"),
        ({"frames": 2000}, "--frames"),
        ({"frames": 8, "stride": 0}, "--frame-stride"),
        ({"frames": 8, "clips": 0}, "--clips"),
        ({"frames": 8, "crops": -1}, "--crops"),
    ],
)
def test_values_out_of_range_are_mistakes(values: dict[str, object], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        ClipSampling(**values)  # type: ignore[arg-type]  # what the test is about
