"""Claims of losa.extract.tarindex."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from losa.errors import InputError
from losa.extract.tarindex import index_shard
from tests.extract.shards import png, write_shard


def test_an_image_lies_where_the_index_says(tmp_path: Path) -> None:
    images = {f"{number:03d}": png(number) for number in range(5)}
    members = {f"{key}.PNG": data for key, data in images.items()}
    shard = write_shard(tmp_path / "a.tar", members)
    found = index_shard(shard)
    whole = shard.read_bytes()
    assert {item.key: whole[item.offset : item.offset + item.size] for item in found} == images
    assert [item.image for item in found] == list(members)


@pytest.mark.parametrize(
    ("members", "label", "labels"),
    [
        ({}, None, None),
        ({"a.cls": b"7\n"}, "7", None),
        ({"a.cls": b"07"}, "7", None),
        ({"a.txt": b"  tawny owl \n"}, "tawny owl", None),
        ({"a.json": b'{"label": "owl", "width": 3}'}, "owl", None),
        ({"a.json": b'{"label": 3}'}, "3", None),
        ({"a.json": b'{"labels": ["owl", 3]}'}, None, ("owl", "3")),
        ({"a.json": b'{"caption": "x"}', "a.txt": b"oak"}, "oak", None),
        ({"a.lst": b"owl\noak\n"}, None, ("owl", "oak")),
        ({"a.lst": b""}, None, ()),
        ({"a.txt": b"a bird", "a.cls": b"1"}, "1", None),
    ],
)
def test_a_label_is_what_the_first_member_that_says_one_says(
    tmp_path: Path, members: dict[str, bytes], label: str | None, labels: tuple[str, ...] | None
) -> None:
    shard = write_shard(tmp_path / "a.tar", {"a.png": png(0), **members})
    (found,) = index_shard(shard)
    assert (found.label, found.labels) == (label, labels)


def test_a_key_ends_at_the_first_dot_and_keeps_its_folders(tmp_path: Path) -> None:
    members = {"x/y/a.b.png": png(0), "x/z/a.png": png(1), "x/z/a.seg.png": png(2)}
    shard = write_shard(tmp_path / "a.tar", {**members, "__meta__.json": b"x", ".hidden": b"x"})
    found = index_shard(shard)
    assert [(item.key, item.image) for item in found] == [
        ("x/y/a", "x/y/a.b.png"),
        ("x/z/a", "x/z/a.png"),
    ]


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"a.txt": b"x"}, "holds no images"),
        ({"a.png": b"x", "a.jpg": b"x"}, "sample 'a' has 2 images: jpg, png"),
        ({"a.png": b"x", "A.png": b"x", "a.PNG": b"x"}, "member 'a.PNG' stands twice"),
        ({"../a.png": b"x"}, r"member: path '../a.png' does not name a file below"),
        ({"/a.png": b"x"}, "member: path '/a.png' is not a relative"),
        ({"a.png": b"x", "a.cls": b"-1\n2"}, "member 'a.cls' holds no label"),
        ({"a.png": b"x", "a.cls": b""}, "member 'a.cls' holds no label"),
        ({"a.png": b"x", "a.cls": b"\xff"}, "member 'a.cls' holds no label"),
        ({"a.png": b"x", "a.json": b"{"}, "member 'a.json' holds no label"),
        ({"a.png": b"x", "a.json": b'{"label": true}'}, "member 'a.json' holds no label"),
        ({"a.png": b"x", "a.txt": b"x" * 300}, "member 'a.txt' holds no label"),
        ({"a.png": b"x", "a.txt": b"x" * 2_000_000}, "member 'a.txt' is too large for a label"),
    ],
)
def test_an_unfit_member_is_refused_by_name(
    tmp_path: Path, members: dict[str, bytes], what: str
) -> None:
    shard = write_shard(tmp_path / "a.tar", members)
    with pytest.raises(InputError, match=what) as caught:
        index_shard(shard)
    assert str(caught.value).startswith(str(shard))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.FIFOTYPE, "no plain file"),
        (tarfile.CHRTYPE, "no plain file"),
    ],
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("folder"))
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match=f"member 'a.png' is {what}"):
        index_shard(tmp_path / "a.tar")


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 3
    info.pax_headers = {"GNU.sparse.map": "0,3", "GNU.sparse.size": "9"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(InputError, match=r"member 'a.png' is sparse"):
        index_shard(tmp_path / "a.tar")


def test_a_folder_in_a_shard_is_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        folder = tarfile.TarInfo("x")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        info = tarfile.TarInfo("x/a.png")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    assert [item.key for item in index_shard(tmp_path / "a.tar")] == ["x/a"]


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"a.png": png(0)})
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(InputError, match=r"is compressed \(gzip\).*unpack it"):
        index_shard(shard)


@pytest.mark.parametrize("kept", [0, 100, 511, 512, 700, 1024, 1535, 1536, 2000])
def test_a_shard_that_was_cut_is_refused_wherever_it_was(tmp_path: Path, kept: int) -> None:
    shard = write_shard(tmp_path / "a.tar", {"a.png": b"x" * 500, "b.png": b"y" * 500})
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"is cut|no sound tar file"):
        index_shard(shard)


def test_a_broken_header_is_refused_and_hides_nothing(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {f"{n}.png": b"x" * 500 for n in range(3)})
    data = bytearray(shard.read_bytes())
    data[1024 + 3] ^= 255
    shard.write_bytes(data)
    with pytest.raises(InputError, match="something that is no member after byte 1024"):
        index_shard(shard)


def test_two_archives_in_one_file_are_refused(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "1.tar", {"a.png": b"x"}).read_bytes()
    (tmp_path / "2.tar").write_bytes(one + one)
    with pytest.raises(InputError, match="write it as one archive"):
        index_shard(tmp_path / "2.tar")


def test_no_bit_flipped_in_a_header_leads_astray(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"a.png": b"x" * 500, "b.png": b"y" * 500})
    sound, members = shard.read_bytes(), index_shard(shard)
    refused = 0
    for byte in range(512):
        data = bytearray(sound)
        data[byte] ^= 16
        shard.write_bytes(data)
        try:
            # What a checksum's own padding holds changes nothing.
            assert index_shard(shard) == members
        except InputError:
            refused += 1
    assert refused > 500
