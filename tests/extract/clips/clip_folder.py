"""A small folder of real clips: a bright block goes right in class ``a`` and left in ``b``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

from losa.config import ExtractConfig
from tests.extract.picture_folder import tiny_config

WIDTH, HEIGHT = 48, 32


def write_clip(path: Path, frames: np.ndarray, rate: int = 10) -> None:
    """Encode frames by MPEG-4, in whatever container the name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def moving(frames: int, start: int, *, is_left: bool) -> np.ndarray:
    """Frames of a block that moves two pixels each."""
    found = np.full((frames, HEIGHT, WIDTH, 3), 40, np.uint8)
    for time in range(frames):
        left = (start + 2 * time) % (WIDTH - 8)
        left = WIDTH - 8 - left if is_left else left
        found[time, 8:24, left : left + 8] = (230, 200, 60)
    return found


def clip_folder(root: Path, counts: dict[str, int], *, frames: int = 12) -> Path:
    """Write ``counts[split]`` clips of each class below ``root`` and return it."""
    for split, count in counts.items():
        for name in ("a", "b"):
            for number in range(count):
                path = root / split / name / f"{number:03d}.mp4"
                write_clip(path, moving(frames + number, 5 * number, is_left=name == "b"))
    return root


def clip_config(data: Path, store: Path, **changes: Any) -> ExtractConfig:
    """Extraction of four frames by a ViT-Ti with random weights at 32 pixels."""
    return tiny_config(data, store, **{"frames": 4, "decoder": "pyav", **changes})
