from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from losa.extract.augment import augment_of, view_of
from losa.extract.clips.clip import ClipInfo
from losa.extract.clips.loading import frame_range, load_clip, view_place
from losa.extract.clips.readers import is_installed
from losa.extract.images import ImageError, ImageStatus, as_seen, load_pixels
from losa.extract.media import Media, Span
from losa.extract.sampling import CENTRE, ClipSampling
from losa.extract.transforms import Preprocessing
from tests.extract.clips.clip_folder import moving, write_clip

HALF = (0.5, 0.5, 0.5)
PLAIN = Preprocessing((16, 16), 1.0, "center", "bicubic", HALF, HALF)
FRAMES = 30


def picture(index: int) -> np.ndarray:
    """A frame that is another in every place and at every time."""
    return np.random.default_rng(index).integers(0, 255, (24, 40, 3), dtype=np.uint8)


class FakeReader:
    """A video of thirty pictures."""

    info = ClipInfo(FRAMES, 10.0, 40, 24, "none")

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.is_closed = False

    def frames_at(self, indices: Sequence[int]) -> np.ndarray:
        self.asked += indices
        return np.stack([picture(index) for index in indices])

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def video(monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    reader = FakeReader()
    monkeypatch.setattr("losa.extract.clips.loading.open_clip", lambda *_: reader)
    return reader


def with_clip(**values: object) -> Preprocessing:
    return replace(PLAIN, clip=ClipSampling(**values))  # type: ignore[arg-type]  # of a test


def as_images(indices: Sequence[int], media: Media, folder: Path) -> np.ndarray:
    """Every frame by itself through what images go through."""
    found = []
    for index in indices:
        path = folder / f"{index}.png"
        Image.fromarray(picture(index)).save(path)
        found.append(load_pixels(replace(media, path=path, span=None), PLAIN))
    return np.stack(found)


def test_every_frame_of_a_clip_is_treated_as_an_image(video: FakeReader, tmp_path: Path) -> None:
    pixels = load_clip(Media(Path("a.mp4")), with_clip(frames=4, stride=2))

    assert video.asked == [12, 14, 16, 18]
    assert video.is_closed
    np.testing.assert_array_equal(pixels, as_images(video.asked, Media(Path("a")), tmp_path))


@pytest.mark.parametrize("policy", ["crop-flip", "randaug"])
def test_all_frames_of_an_augmented_view_share_what_was_drawn(
    video: FakeReader, tmp_path: Path, policy: str
) -> None:
    media = view_of(augment_of(policy, 3), Media(Path("a.mp4")), "a", 2)

    pixels = load_clip(media, with_clip(frames=4, stride=2))

    np.testing.assert_array_equal(pixels, as_images(video.asked, media, tmp_path))


def test_augmented_views_begin_elsewhere_and_always_at_the_same_place(video: FakeReader) -> None:
    starts = []
    for view in range(1, 9):
        media = view_of(augment_of("crop-flip", 0), Media(Path("a.mp4")), "a", view)
        again = []
        for _ in range(2):
            load_clip(media, with_clip(frames=4, stride=2))
            again.append(video.asked[-4:])
        assert again[0] == again[1]
        starts.append(again[0][0])
    assert len(set(starts)) > 3
    assert all(0 <= start <= FRAMES - 7 for start in starts)


def test_test_views_are_other_parts_in_time_and_along_the_longer_side(video: FakeReader) -> None:
    preprocessing = with_clip(frames=2, stride=1, clips=3, crops=3)
    seen = []
    for view in range(9):
        pixels = load_clip(view_of(None, Media(Path("a.mp4")), "a", view), preprocessing)
        first = Image.fromarray(picture(video.asked[-2])).resize((26, 16), Image.Resampling.BICUBIC)
        lefts = [
            left
            for left in range(11)
            if np.array_equal(np.array(first)[:, left : left + 16], pixels[0])
        ]
        assert len(lefts) == 1
        seen.append((video.asked[-2], lefts[0]))
    assert seen == [(start, left) for start in (14, 4, 24) for left in (5, 0, 10)]


def test_a_picture_that_is_high_is_cropped_along_its_height() -> None:
    tall = np.random.default_rng(0).integers(0, 255, (40, 16, 3), dtype=np.uint8)
    media = Media(Path("a.mp4"))

    found = as_seen(Image.fromarray(tall), media, PLAIN, Fraction(1))

    np.testing.assert_array_equal(found, tall[24:])


def test_a_part_of_a_video_is_a_clip_of_its_own(video: FakeReader) -> None:
    media = Media(Path("a.mp4"), span=Span(0.5, 1.3))

    load_clip(media, with_clip(frames=8))
    assert video.asked == list(range(5, 13))

    load_clip(Media(Path("a.mp4"), span=Span(25.0, 90.0, "frames")), with_clip(frames=5))
    assert video.asked[8:] == list(range(25, 30))


def test_a_part_behind_the_end_of_its_video_is_no_clip(video: FakeReader) -> None:
    media = Media(Path("a.mp4"), span=Span(3.0, 4.0))

    with pytest.raises(ImageError, match="30 frames, and the clip begins at frame 30") as caught:
        load_clip(media, with_clip(frames=8))
    assert caught.value.code == ImageStatus.CORRUPT
    assert video.is_closed


def test_a_short_clip_fails_only_if_it_is_asked_to(video: FakeReader) -> None:
    short = {"frames": 16, "stride": 4}
    with pytest.raises(ImageError, match="30 frames, and 61 are needed") as caught:
        load_clip(Media(Path("a.mp4")), with_clip(**short, short="fail"))
    assert caught.value.code == ImageStatus.SHORT

    padded = load_clip(Media(Path("a.mp4")), with_clip(**short))
    assert (padded[8:] == padded[8]).all()
    assert (padded[7] != padded[8]).any()


def test_frames_of_a_part_are_rounded_to_the_nearest_and_one_at_least() -> None:
    assert frame_range(Span(0.99, 1.0), 25.0) == (25, 26)
    assert frame_range(Span(1.0, 2.0), 29.97) == (30, 60)


def test_a_view_that_a_plan_does_not_have_as_a_test_view_is_the_middle() -> None:
    assert view_place(ClipSampling(8), Media(Path("a"), view=1)) == (CENTRE, None)


@pytest.mark.parametrize("width", [16, 20, 48, 50, 64, 66])
def test_both_decoders_give_the_pixels_of_narrow_videos(width: int, tmp_path: Path) -> None:
    if not is_installed("decord"):
        pytest.skip("decord has no wheel here")
    wide = np.tile(moving(3, 2, is_left=False), (1, 1, 2, 1))
    write_clip(tmp_path / "a.mp4", wide[:, :, :width])

    by_decord = load_clip(Media(tmp_path / "a.mp4"), with_clip(frames=3, decoder="decord"))
    by_pyav = load_clip(Media(tmp_path / "a.mp4"), with_clip(frames=3, decoder="pyav"))

    np.testing.assert_allclose(by_decord.astype(int), by_pyav.astype(int), atol=2)
