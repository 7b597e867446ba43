"""PyAV's frames are told by their time stamps, wherever a seek has landed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from losa.extract.clips import pyav_reader
from losa.extract.clips.readers import open_clip
from tests.extract.clips.golden_clips import numbers


@pytest.mark.parametrize("name", ["h264-groups.mov", "hevc-open.mkv", "h264-b.ts", "variable.mkv"])
def test_a_seek_that_lands_too_late_is_made_good_from_the_start(
    golden: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [30, 2, 25]
    with closing(open_clip(golden / name, "pyav")) as clip:
        groups = pyav_reader._Index.groups
        # As if every frame began a group: seeks then land behind frames that need earlier ones.
        monkeypatch.setattr(
            pyav_reader._Index,
            "groups",
            lambda self, frames: iter([(min(34, len(self.stamps) - 1), list(frames))]),
        )
        assert numbers(clip.frames_at(wanted)) == wanted
        monkeypatch.setattr(pyav_reader._Index, "groups", groups)
        assert numbers(clip.frames_at(wanted)) == wanted
