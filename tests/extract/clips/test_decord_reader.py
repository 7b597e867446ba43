"""decord by itself gives other frames than were asked for; ours through it does not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import decord
import pytest

from losa.extract.clips.readers import open_clip
from tests.extract.clips.golden_clips import GOLDEN, numbers

OPEN_GROUPS = ("h264-open.mp4", "hevc-open.mkv", "mpeg4-b.mp4")


@pytest.mark.parametrize("name", OPEN_GROUPS)
def test_key_frames_that_decord_numbers_wrongly_are_not_jumped_to(golden: Path, name: str) -> None:
    with closing(open_clip(golden / name, "decord")) as clip:
        marks = decord.VideoReader(str(golden / name), num_threads=1).get_key_indices()
        assert len(marks) > 2, "the clip has no groups to be wrong about"
        for frame in {near for mark in marks for near in (mark, mark + 1, mark + 2)}:
            if frame < GOLDEN[name].frames:
                assert numbers(clip.frames_at([frame])) == [frame]
