"""Claims of ``benchmarks/motion.py``."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import motion as module
from benchmarks.motion import (
    CLASSES,
    FRAMES,
    PLACES,
    SIDE,
    Scene,
    frames,
    motion,
    order,
    scene,
    write_clip,
)

COUNTS = {"train": 24, "test": 12}


def blobs(_: Path) -> NDArray[np.uint8]:
    """As many digits as are needed, each with a brightness of its own."""
    digits = np.zeros((40, 28, 28), np.uint8)
    digits[:, 6:22, 8:20] = np.arange(200, 240, dtype=np.uint8)[:, None, None]
    return digits


def decoded(path: Path) -> NDArray[np.uint8]:
    """The frames of a file."""
    with av.open(str(path)) as container:
        return np.stack([one.to_ndarray(format="rgb24") for one in container.decode(video=0)])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return motion(tmp_path_factory.mktemp("motion"), COUNTS, blobs)


@pytest.fixture
def drawn() -> Scene:
    return scene(blobs(Path()), np.random.default_rng(3))


def test_the_clips_of_all_classes_have_the_same_frames_in_another_order(drawn: Scene) -> None:
    clips = [frames(drawn, label) for label in range(len(CLASSES))]
    multisets = [sorted(frame.tobytes() for frame in clip) for clip in clips]
    assert all(multiset == multisets[0] for multiset in multisets)
    assert len(set(multisets[0])) == FRAMES
    for one, other in combinations(clips, 2):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("right-down", [(1, 0)] * 5 + [(0, 1)] * 5),
        ("up-left", [(0, -1)] * 5 + [(-1, 0)] * 5),
        (
            "left+right-up+down",
            [(-2, 0), (-2, 0), (-1, 0), (2, 0), (2, 0), (0, -2), (0, -2), (0, -1), (0, 2), (0, 2)],
        ),
    ],
)
def test_a_class_moves_as_its_name_says(
    name: str, steps: list[tuple[int, int]], drawn: Scene
) -> None:
    clip = frames(drawn, CLASSES.index(name)).astype(np.float64)
    # Without the still background, by the median over time, what is left is where the sprite is.
    left = np.abs(clip - np.median(clip, axis=0)).sum(axis=-1)
    middles = np.arange(SIDE) + 0.5
    x = (left.sum(axis=1) * middles).sum(axis=1) / left.sum(axis=(1, 2))
    y = (left.sum(axis=2) * middles).sum(axis=1) / left.sum(axis=(1, 2))
    moved = np.stack([np.diff(x), np.diff(y)], axis=1)
    moved = np.delete(moved, PLACES - 1, axis=0)
    place = np.array([np.ptp(x), np.ptp(y)]) / (PLACES - 1)
    assert np.abs(moved / place - np.array(steps)).max() < 0.25


def test_every_pass_visits_every_place_once() -> None:
    for label in range(len(CLASSES)):
        visited = order(label)
        assert sorted(visited) == [
            (axis, place) for axis in ("column", "row") for place in range(PLACES)
        ]
        assert len({axis for axis, _ in visited[:PLACES]}) == 1


def test_a_clip_is_real_h264_with_frames_that_refer_to_later_ones(
    drawn: Scene, tmp_path: Path
) -> None:
    write_clip(tmp_path / "one.mp4", frames(drawn, 0))
    with av.open(str(tmp_path / "one.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height, stream.frames) == (SIDE, SIDE, FRAMES)
        packets = [(item.pts, item.dts) for item in container.demux(stream) if item.pts is not None]
    assert [pts for pts, _ in packets] != sorted(pts for pts, _ in packets)


def test_encoding_leaves_the_frames_what_they_were(drawn: Scene, tmp_path: Path) -> None:
    wanted = frames(drawn, 9)
    write_clip(tmp_path / "one.mp4", wanted)
    # Colours are stored at half the resolution: brightness is what can be compared.
    weights = np.array([0.299, 0.587, 0.114])
    error = (decoded(tmp_path / "one.mp4") @ weights) - (wanted @ weights)
    assert np.sqrt((error**2).mean()) < 4.0
    assert np.sqrt((((wanted[0].astype(float) - wanted[5]) @ weights) ** 2).mean()) > 12.0


def test_classes_are_balanced_and_no_clip_is_in_two_places(tree: Path) -> None:
    for split, clips in COUNTS.items():
        sizes = {folder.name: len(list(folder.iterdir())) for folder in (tree / split).iterdir()}
        assert sizes == dict.fromkeys(CLASSES, clips // len(CLASSES))
    contents = [path.read_bytes() for path in tree.rglob("*.mp4")]
    assert len(set(contents)) == len(contents) == sum(COUNTS.values())


def test_no_two_splits_share_a_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []

    def spy(digits: NDArray[np.uint8], generator: np.random.Generator) -> Scene:
        found = {int(digit.max()) for digit in digits}
        if found not in seen:
            seen.append(found)
        return scene(digits, generator)

    monkeypatch.setattr(module, "scene", spy)
    module.motion(tmp_path, {"train": 2, "test": 2}, blobs)
    assert len(seen) == 2
    assert not seen[0] & seen[1]


def test_a_sprite_is_never_cut_off() -> None:
    generator = np.random.default_rng(1)
    for _ in range(60):
        shown = scene(blobs(Path()), generator)
        reach = len(shown.mask) / 2 + 0.5
        for centres in (shown.row, shown.column):
            assert centres.min() >= reach
            assert centres.max() <= SIDE - reach


def test_the_same_seed_renders_the_same_clips_but_for_the_encoders_rounding(
    tree: Path, tmp_path: Path
) -> None:
    again = motion(tmp_path, COUNTS, blobs)
    for path in sorted(tree.rglob("*.mp4"))[::5]:
        first, second = (decoded(one) for one in (path, again / path.relative_to(tree)))
        # x264 picks its routines by the machine and by how memory lies, so bits may differ.
        assert np.abs(first.astype(int) - second).mean() < 1


def test_a_tree_of_other_counts_or_of_another_version_is_another_tree(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tree.parent
    assert motion(cache, COUNTS, blobs) == tree
    assert motion(cache, {"train": 1}, blobs) != tree
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert motion(cache, {"train": 1}, blobs).name == f"motion-v{module.VERSION}-1"
