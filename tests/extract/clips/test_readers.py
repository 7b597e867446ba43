"""Both decoders give exactly the frames that were asked for, or say why they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from losa.errors import ResourceError, UsageError
from losa.extract.clips import readers
from losa.extract.clips.readers import Decoder, decoder_version, open_clip, resolve_decoder
from losa.extract.images import ImageError, ImageStatus
from tests.extract.clips.golden_clips import (
    GOLDEN,
    HEIGHT,
    WIDTH,
    X264,
    Golden,
    begun_later,
    make,
    make_sound,
    numbers,
    picture,
    turned,
)

DECODERS: tuple[Decoder, ...] = ("decord", "pyav")
REFUSED = {
    ("av1.mp4", "decord"): (ImageStatus.FORMAT, "holds av1, which decord 0.6.0 does not decode"),
    ("h264-b.ts", "decord"): (ImageStatus.DAMAGED, "its decoder leaves frames out"),
}
"""What a decoder cannot do, and what it says of it; everything else is given."""


def frames_of(path: Path, decoder: Decoder, indices: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
    with closing(open_clip(path, decoder)) as clip:
        return clip.frames_at(indices)


def refusal(path: Path, decoder: Decoder, indices: Sequence[int] = (0,)) -> tuple[ImageStatus, str]:
    with pytest.raises(ImageError) as caught:
        frames_of(path, decoder, indices)
    assert caught.value.subject == str(path)
    return caught.value.code, caught.value.what


def orders(frames: int) -> list[list[int]]:
    """All; one; the last; backwards with gaps; with repeats; in seeded disorder."""
    last, middle = frames - 1, frames // 2
    mixed = np.random.default_rng(frames).integers(0, frames, 8).tolist()
    spread = [int((step + 0.5) * frames / 8) for step in range(8)]
    return [
        list(range(frames)),
        [middle],
        [last],
        list(range(last, -1, -7)),
        [middle, last, 0, middle, 0, last],
        mixed,
        spread,
    ]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", GOLDEN)
def test_every_golden_clip_gives_exactly_the_frames_asked_for_or_a_reason(
    golden: Path, name: str, decoder: Decoder, capfd: pytest.CaptureFixture[str]
) -> None:
    path, frames = golden / name, GOLDEN[name].frames
    if (name, decoder) in REFUSED:
        code, what = REFUSED[name, decoder]
        found = refusal(path, decoder)
        assert found[0] == code
        assert what in found[1]
    else:
        with closing(open_clip(path, decoder)) as clip:
            assert (clip.info.frames, clip.info.width, clip.info.height) == (frames, WIDTH, HEIGHT)
            for order in orders(frames):
                assert numbers(clip.frames_at(order)) == order
            assert clip.frames_at([]).shape == (0, HEIGHT, WIDTH, 3)
    assert capfd.readouterr() == ("", "")


def test_of_an_avi_with_b_frames_every_frame_alone_is_the_one_asked_for_or_has_a_reason(
    tmp_path: Path,
) -> None:
    """FFmpeg makes up its times from the order of packets, which is not that of frames."""
    path = tmp_path / "h264-b.avi"
    make(path, Golden("libx264", 40, 12, X264))
    refused: dict[Decoder, list[ImageStatus]] = {"decord": [], "pyav": []}
    for decoder in DECODERS:
        for index in range(40):
            try:
                assert numbers(frames_of(path, decoder, [index])) == [index]
            except ImageError as error:
                refused[decoder].append(error.code)
    assert not refused["pyav"]
    assert set(refused["decord"]) <= {ImageStatus.DAMAGED}
    assert len(refused["decord"]) < 40


@pytest.mark.parametrize(
    ("name", "furthest"),
    [("h264.mp4", 0), ("h264-422.mkv", 0), ("mpeg4.avi", 0), ("hevc-10.mp4", 40)],
)
def test_both_decoders_give_the_same_pixels_but_for_edges_of_ten_bits(
    golden: Path, name: str, furthest: int
) -> None:
    indices = [0, 7, 11]
    ours, theirs = (frames_of(golden / name, decoder, indices) for decoder in DECODERS)
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= furthest
    assert difference.mean() < 1
    drawn = np.stack([picture(index) for index in indices]).astype(int)
    assert np.abs(ours - drawn).mean() < 12


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_clip_is_turned_as_its_metadata_say(
    golden: Path, tmp_path: Path, decoder: Decoder, quarters: int
) -> None:
    path = tmp_path / "turned.mp4"
    path.write_bytes(turned((golden / "h264.mp4").read_bytes(), quarters))
    with closing(open_clip(path, decoder)) as clip:
        shown = clip.frames_at([33, 5])
        assert (clip.info.height, clip.info.width) == shown.shape[1:3]
    assert numbers(np.rot90(shown, quarters, axes=(1, 2))) == [33, 5]


def test_an_index_counts_from_where_an_edit_list_begins(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "later.mp4"
    path.write_bytes(begun_later((golden / "h264.mp4").read_bytes(), 0.4))
    with closing(open_clip(path, "pyav")) as clip:
        assert clip.info.frames == 90
        assert numbers(clip.frames_at([0, 50, 89])) == [10, 60, 99]
    assert refusal(path, "decord")[0] == ImageStatus.DAMAGED


def test_of_a_file_cut_short_later_frames_are_refused_and_never_replaced(
    golden: Path, tmp_path: Path
) -> None:
    data = (golden / "h264.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * 0.7)])
    with closing(open_clip(path, "pyav")) as clip:
        assert clip.info.frames == 100
        assert numbers(clip.frames_at([20, 0, 3])) == [20, 0, 3]
    assert refusal(path, "pyav", [3, 95])[0] == ImageStatus.DAMAGED
    assert refusal(path, "decord", [3, 95])[0] in (ImageStatus.DAMAGED, ImageStatus.CORRUPT)
    for name in ("mpeg4.avi", "vp9.webm"):
        shorter = tmp_path / name
        shorter.write_bytes((golden / name).read_bytes()[:-500])
        for decoder in DECODERS:
            assert refusal(shorter, decoder) == (ImageStatus.DAMAGED, "is cut short")


def test_a_frame_lost_in_the_middle_never_moves_the_others_of_pyav(
    golden: Path, tmp_path: Path
) -> None:
    # What most decoders do: the frame is left out, and all behind it come one too early.
    data = bytearray((golden / "mpeg4.avi").read_bytes())
    chunks = [place for place in range(len(data)) if data[place : place + 4] == b"00dc"]
    size = int.from_bytes(data[chunks[5] + 4 : chunks[5] + 8], "little")
    data[chunks[5] + 8 : chunks[5] + 8 + size] = bytes(size)
    path = tmp_path / "lost.avi"
    path.write_bytes(bytes(data))
    for wanted in ([2], [20], [39], [2, 20, 39]):
        try:
            assert numbers(frames_of(path, "pyav", wanted)) == wanted
        except ImageError as error:
            assert error.code == ImageStatus.DAMAGED  # noqa: PT017 (either is right)


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_beyond_the_last_are_refused(golden: Path, decoder: Decoder) -> None:
    for index in (3, -1):
        what = f"has no frame {index}: it has 3"
        assert refusal(golden / "three.mp4", decoder, [index]) == (ImageStatus.DAMAGED, what)


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_is_no_video_is_refused_before_a_decoder_sees_it(
    golden: Path, tmp_path: Path, decoder: Decoder, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "%03d.mp4"
    secret = tmp_path / "secret.mp4"
    secret.write_bytes((golden / "three.mp4").read_bytes())
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile:{secret}\n#EXT-X-ENDLIST\n".encode()
    for data, wanted in {
        playlist: "is a playlist",
        f"ffconcat version 1.0\nfile {secret}\n".encode(): "is a list of files",
        (tmp_path / "a.png").read_bytes(): "is an image",
        b"RIFF\x10\x00\x00\x00WEBPVP8 ": "is an image",
        b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00": "is an image",
        b"G" + b"." * 187 + b"G" + b"." * 187 + b"G" + b"<MPD>" * 40: "is text",
        b"v=0\nc=IN IP4 127.0.0.1\n": "is text",
        b"\x00\x01\x02" * 40: "is no video",
    }.items():
        path.write_bytes(data)
        code, what = refusal(path, decoder)
        assert code == ImageStatus.FORMAT
        assert what == f"{wanted}, not one of mp4/mov, matroska/webm, avi, mpeg-ts"
    for data, wanted in {b"": "is empty", b"\x00\x00\x00\x08moov": "holds no video"}.items():
        path.write_bytes(data)
        assert refusal(path, decoder)[1] == wanted
    assert refusal(make_sound(path), decoder) == (ImageStatus.FORMAT, "holds no video")
    path.write_bytes(secret.read_bytes())
    assert numbers(frames_of(path, decoder, [2])) == [2], "a name is no pattern"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("decoder", DECODERS)
def test_only_regular_files_are_opened_and_pipes_never_waited_for(
    golden: Path, tmp_path: Path, decoder: Decoder
) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    assert refusal(pipe, decoder)[0] == ImageStatus.NOT_A_FILE
    assert refusal(tmp_path, decoder)[0] == ImageStatus.NOT_A_FILE
    assert refusal(tmp_path / "none.mp4", decoder)[0] == ImageStatus.MISSING
    for address in ("http://127.0.0.1:9/a.mp4", f"concat:{golden}/one.mp4|{golden}/three.mp4"):
        assert refusal(Path(address), decoder)[0] == ImageStatus.MISSING


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_file_that_is_written_while_open_has_changed(
    golden: Path, tmp_path: Path, decoder: Decoder
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes((golden / "three.mp4").read_bytes())
    clip = open_clip(path, decoder)
    clip.frames_at([1])
    path.write_bytes((golden / "one.mp4").read_bytes())
    with pytest.raises(ImageError) as caught:
        clip.close()
    assert caught.value.code == ImageStatus.CHANGED
    with pytest.raises(ImageError) as caught, closing(open_clip(path, decoder, opened_ns=1)):
        pass
    assert caught.value.code == ImageStatus.CHANGED


def test_frames_larger_than_images_may_be_are_refused_by_what_the_header_says(
    golden: Path, tmp_path: Path
) -> None:
    data = (golden / "h264.mp4").read_bytes()
    place = data.index(b"avc1", data.index(b"stsd")) + 28
    assert data[place : place + 4] == bytes([0, WIDTH, 0, HEIGHT])
    path = tmp_path / "huge.mp4"
    path.write_bytes(data[:place] + b"\x40\x00\x40\x00" + data[place + 4 :])
    for decoder in DECODERS:
        assert refusal(path, decoder)[0] == ImageStatus.TOO_LARGE


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_request_may_not_take_memory_or_decoding_without_end(
    golden: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losa.extract.clips.clip.KEY_DISTANCE", 30)
    code, what = refusal(golden / "h264.mp4", decoder, [90])
    assert code == ImageStatus.TOO_LARGE
    assert what == "has key frames too far apart: 1 frames take more than 30 decoded ones"
    monkeypatch.setattr("losa.extract.clips.clip.MAX_CLIP_PIXELS", 2 * WIDTH * HEIGHT)
    assert len(frames_of(golden / "one.mp4", decoder, [0, 0])) == 2
    assert refusal(golden / "one.mp4", decoder, [0] * 3)[0] == ImageStatus.TOO_LARGE


def test_a_file_that_changes_the_size_of_its_frames_is_refused(tmp_path: Path) -> None:
    small = make(tmp_path / "small.ts", Golden("mpeg4", 4), [picture(1)[:48, :80]] * 4)
    plain = make(tmp_path / "plain.ts", Golden("mpeg4", 4))
    both = tmp_path / "both.ts"
    both.write_bytes(plain.read_bytes() + small.read_bytes())
    assert refusal(both, "pyav", range(8))[0] in (ImageStatus.FORMAT, ImageStatus.DAMAGED)


def test_decoders_are_found_by_name_and_by_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [resolve_decoder(name) for name in ("auto", "decord", "pyav")] == [
        "decord",
        "decord",
        "pyav",
    ]
    assert decoder_version("decord") == "decord 0.6.0"
    assert decoder_version("pyav").startswith("pyav ")
    with pytest.raises(UsageError, match="give auto, decord or pyav"):
        resolve_decoder("ffmpeg")
    monkeypatch.setattr(readers, "is_installed", lambda decoder: decoder == "pyav")
    assert resolve_decoder("auto") == "pyav"
    with pytest.raises(ResourceError, match="pip install decord"):
        resolve_decoder("decord")
    monkeypatch.setattr(readers, "is_installed", lambda _: False)
    with pytest.raises(ResourceError, match=r"losa\[video\]"):
        resolve_decoder("auto")


def test_naming_a_decoder_loads_none() -> None:
    code = (
        "import sys; from losa.extract.clips.readers import resolve_decoder\n"
        "resolve_decoder(); assert not {'av', 'decord', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
