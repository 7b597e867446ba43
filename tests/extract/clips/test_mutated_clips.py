"""Damaged clips cost themselves alone: no run, and no frame another one in its place."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8

from losa.extract.clips.readers import Decoder, open_clip
from losa.extract.images import ImageError
from losa.extract.media import Media
from losa.extract.workers import DecodeWorkers
from tests.extract.clips.golden_clips import GOLDEN, HEIGHT, WIDTH, mutated_clips, numbers

SHAPE = (3, HEIGHT, WIDTH, 3)
SECONDS = 20.0
SOURCES = ("h264.mp4", "vp9.webm", "mpeg4.avi", "hevc.mp4", "variable.mkv", "h264.ts", "av1.mp4")

log = logging.getLogger(__name__)
"""Says what became of the clips: ``pytest --log-cli-level=info``."""


def three_frames(media: Media, decoder: Decoder) -> UInt8[np.ndarray, "3 h w 3"]:
    """The first, the middle and the last of the frames that the sound clip has."""
    last = GOLDEN[media.path.name.split("-", 2)[2]].frames - 1
    with closing(open_clip(media.path, decoder)) as clip:
        frames = clip.frames_at([0, last // 2, last])
    out = np.zeros(SHAPE, np.uint8)
    height, width = min(HEIGHT, frames.shape[1]), min(WIDTH, frames.shape[2])
    out[:, :height, :width] = frames[:, :height, :width]
    return out


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("count", [15, pytest.param(210, marks=pytest.mark.slow)])
def test_mutated_clips_never_hang_or_stop_a_run(
    golden: Path, tmp_path: Path, count: int, decoder: Decoder
) -> None:
    items = []
    for name, data in mutated_clips([golden / name for name in SOURCES], count):
        (tmp_path / name).write_bytes(data)
        items.append(Media(tmp_path / name))
    workers = DecodeWorkers(partial(three_frames, decoder=decoder), SHAPE, seconds=SECONDS)
    tally: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    try:
        for item, found in zip(items, workers.outcomes(items), strict=True):
            kind, source = item.path.name.split("-", 2)[1:]
            last = GOLDEN[source].frames - 1
            code = found.code.name if isinstance(found, ImageError) else "OK"
            if not isinstance(found, ImageError) and numbers(found) != [0, last // 2, last]:
                code = "OTHER"
                assert kind != "cut", "what is not there was made up"
            tally[kind, code] += 1
    finally:
        workers.close()
    log.info("%s: %d clips in %.1f s", decoder, count, time.monotonic() - started)
    for (kind, code), number in sorted(tally.items()):
        log.info("%-8s %-9s %3d", kind, code, number)
    assert tally.total() == count
