from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losa.config import ExtractConfig
from losa.errors import UsageError
from losa.extract.clips.asking import asked_clip, flags_of, is_of_clips
from losa.extract.sampling import ClipSampling


def asking(**values: Any) -> ExtractConfig:
    usual: dict[str, Any] = {"model": "dinov2_s", "dataset": "folder:clips", "decoder": "pyav"}
    return ExtractConfig(**{**usual, **values})


@pytest.mark.parametrize(
    ("values", "frames", "stride"),
    [
        ({"frames": 8}, 8, None),
        ({"frames": 8, "frame_stride": 4}, 8, 4),
        ({"dataset": "k400"}, 16, None),
        ({"dataset": "epic:verb"}, 16, None),
        ({"model": "vivit_b"}, 32, 2),
        ({"model": "vivit_b", "frames": 16, "frame_stride": "uniform"}, 16, None),
    ],
)
def test_clips_are_asked_for_by_frames_model_or_data_set(
    values: dict[str, object], frames: int, stride: int | None
) -> None:
    config = asking(**values)

    assert is_of_clips(config)
    assert asked_clip(config) == ClipSampling(frames, stride, decoder="pyav")


def test_nothing_of_clips_is_asked_for_of_images() -> None:
    config = asking(decoder="auto")

    assert not is_of_clips(config)
    assert asked_clip(config) is None


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"frame_stride": 2}, "--frame-stride"),
        ({"short": "loop"}, "--short"),
        ({"clips": 4}, "--clips"),
        ({"crops": 3}, "--crops"),
        ({"decoder": "pyav"}, "--decoder"),
    ],
)
def test_a_flag_of_clips_is_a_mistake_with_images(values: dict[str, object], flag: str) -> None:
    with pytest.raises(UsageError, match=rf"^{flag}: is about clips"):
        asked_clip(asking(**{"decoder": "auto", **values}))


def test_more_test_views_than_a_store_holds_are_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"^--clips: 22 times 3 crops are more than 64 views"):
        asked_clip(asking(frames=8, clips=22, crops=3))


def test_flags_of_a_sampling_ask_for_it_again() -> None:
    for clip in (ClipSampling(8, 4, "loop", "pyav", 4, 3), ClipSampling(8, decoder="pyav")):
        assert asked_clip(asking(**flags_of(clip))) == clip


def test_a_bill_needs_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losa.extract.clips.readers.is_installed", lambda _: False)

    found = asked_clip(asking(frames=8, decoder="auto", data_dir=Path("x")), "decord")

    assert found == ClipSampling(8)
