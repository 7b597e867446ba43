"""What a file may say of its video, and what may be asked of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from losa.extract.clips.clip import ClipInfo, Effort, check_request, checked_info
from losa.extract.images import ImageError, ImageStatus

PATH = Path("clip.mp4")
SOUND = ClipInfo(10, 25.0, 320, 240, "h264")


def test_what_makes_sense_is_taken_as_said() -> None:
    assert checked_info(PATH, SOUND) is SOUND
    assert checked_info(PATH, ClipInfo(1, 0.0, 1, 1, "")).fps == 0


@pytest.mark.parametrize(
    ("info", "code"),
    [
        (ClipInfo(0, 25.0, 320, 240, ""), ImageStatus.CORRUPT),
        (ClipInfo(4_000_001, 25.0, 320, 240, ""), ImageStatus.TOO_LARGE),
        (ClipInfo(10, 1e6, 320, 240, ""), ImageStatus.CORRUPT),
        (ClipInfo(10, float("nan"), 320, 240, ""), ImageStatus.CORRUPT),
        (ClipInfo(10, 25.0, 16_384, 16_384, ""), ImageStatus.TOO_LARGE),
    ],
)
def test_what_makes_no_sense_or_is_too_much_is_refused(info: ClipInfo, code: ImageStatus) -> None:
    with pytest.raises(ImageError) as caught:
        checked_info(PATH, info)
    assert caught.value.code == code


def test_a_request_stays_within_the_file() -> None:
    check_request(PATH, SOUND, [0, 9, 9])
    with pytest.raises(ImageError, match="has no frame 10: it has 10"):
        check_request(PATH, SOUND, [0, 10])


def test_effort_ends_at_a_thousand_frames_for_each_wanted() -> None:
    effort = Effort(PATH, 2)
    effort.spend(2000)
    with pytest.raises(ImageError, match="key frames too far apart"):
        effort.spend()
