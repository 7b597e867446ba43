"""Claims of losa.extract.fetching, held against a server of this machine."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from losa.errors import InputError, ResourceError, UsageError
from losa.extract import fetching
from losa.extract.datasets import load_dataset
from losa.extract.fetching import fetch_shards
from losa.store import files, lock
from tests.extract.processes import start, wait_until
from tests.extract.shards import labelled_shard


class Server:
    """Serves the files of a folder, but for those it was told to cut, and counts what is asked.

    While ``goes_on`` is not set, an answer stops after its head.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.cut: set[str] = set()
        self.told: dict[str, str] = {}
        self.goes_on = threading.Event()
        self.goes_on.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/").partition("?")[0]
                server.asked.append(name)
                if not (folder / name).is_file():
                    self.send_error(404)
                    return
                data = self.head(name)
                self.wfile.flush()
                server.goes_on.wait(60)
                self.wfile.write(data[:1000] if name in server.cut else data)

            def do_HEAD(self) -> None:
                known = (folder / self.path.lstrip("/")).is_file()
                self.head(self.path.lstrip("/")) if known else self.send_error(404)

            def head(self, name: str) -> bytes:
                data = (folder / name).read_bytes()
                self.send_response(200)
                for header, value in {"Content-Length": str(len(data)), **server.told}.items():
                    self.send_header(header, value)
                self.end_headers()
                return data

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        serve = self._http.serve_forever
        threading.Thread(target=serve, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for number in range(3):
        labelled_shard(tmp_path / "web" / f"train-{number}.tar", {f"{number}": number})
    found = Server(tmp_path / "web")
    yield found
    found.close()


def test_shards_of_a_url_are_fetched_once(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pattern = f"{server.url}/train-{{0..2}}.tar"
    first = load_dataset(f"wds:{pattern}", tmp_path / "data")
    again = load_dataset(f"wds:{pattern}", tmp_path / "data")
    assert server.asked == ["train-0.tar", "train-1.tar", "train-2.tar"]
    assert first == again
    assert first.name == f"wds:{pattern}"
    assert [sample.key for sample in first.splits["train"]] == [
        "train-0/0",
        "train-1/1",
        "train-2/2",
    ]
    assert first.root == tmp_path / "data/wds" / hashlib.sha256(pattern.encode()).hexdigest()
    assert "fetching 3 of 3 shards" in caplog.text


def test_an_interrupted_fetch_goes_on_with_the_shard_that_is_missing(
    server: Server, tmp_path: Path
) -> None:
    urls = [f"{server.url}/train-{number}.tar" for number in range(3)]
    server.cut = {"train-1.tar"}
    with pytest.raises(ResourceError, match=r"train-1.tar: .*run the command again"):
        fetch_shards("x", urls, tmp_path / "cache")
    server.cut.clear()
    server.asked.clear()
    places = fetch_shards("x", urls, tmp_path / "cache")
    assert server.asked == ["train-1.tar", "train-2.tar"]
    for place in places:
        assert place.read_bytes() == (tmp_path / "web" / place.name).read_bytes()
    records = [place.with_name(f".{place.name}.json") for place in places]
    assert sorted(places[0].parent.iterdir()) == [*records, *places]


def test_what_the_server_lacks_is_an_error_with_its_status(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"gone.tar: cannot be fetched \(HTTP 404") as caught:
        fetch_shards("x", [f"{server.url}/gone.tar?token=secret"], tmp_path)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_gone_is_one_line(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(ResourceError, match="cannot be fetched"):
        fetch_shards("x", [f"{server.url}/train-0.tar"], tmp_path)


def test_secrets_of_a_url_are_in_no_name(server: Server, tmp_path: Path) -> None:
    dataset = load_dataset(f"wds:{server.url}/train-0.tar?token=secret", tmp_path)
    assert dataset.name == f"wds:{server.url}/train-0.tar"


@pytest.mark.parametrize("name", ["a.tar.gz", "", "..%2F..%2Fa.tar", ".tar"])
def test_a_url_that_names_no_tar_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not the name of an uncompressed tar file"):
        fetch_shards("x", [f"http://127.0.0.1/{name}"], tmp_path)


def test_a_users_name_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="carries a user's name") as caught:
        fetch_shards("x", ["https://me:s3cret@example.org/a.tar"], tmp_path)
    assert "s3cret" not in str(caught.value)


def test_shards_of_one_name_in_several_folders_are_refused_before_any_fetch(
    server: Server, tmp_path: Path
) -> None:
    urls = [f"{server.url}/{folder}/0.tar" for folder in ("train", "val")]
    with pytest.raises(UsageError, match="one name in several folders"):
        fetch_shards("x", urls, tmp_path)
    assert server.asked == []


def fetch_with(server: Server, cache: Path, *numbers: int) -> list[Path]:
    return fetch_shards("x", [f"{server.url}/train-{number}.tar" for number in numbers], cache)


def test_of_many_that_want_the_same_shards_each_shard_is_fetched_by_one(
    server: Server, tmp_path: Path
) -> None:
    server.goes_on.clear()
    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(fetch_with, server, tmp_path / "c", 0, 1, 2) for _ in range(6)]
        threading.Timer(0.3, server.goes_on.set).start()
        places = [one.result(timeout=60) for one in found]
    assert sorted(server.asked) == ["train-0.tar", "train-1.tar", "train-2.tar"]
    assert all(one == places[0] for one in places)
    for place in places[0]:
        assert place.read_bytes() == (tmp_path / "web" / place.name).read_bytes()
    kept = {path.suffix for path in places[0][0].parent.iterdir()}
    assert kept == {".tar", ".json"}


FETCH = """
import sys
from pathlib import Path
from losa.extract.fetching import fetch_shards
fetch_shards("x", [sys.argv[1]], Path(sys.argv[2]))
"""


def test_a_fetch_that_is_killed_is_taken_over_at_once_and_leaves_nothing(
    server: Server, tmp_path: Path
) -> None:
    server.goes_on.clear()
    url, cache = f"{server.url}/train-0.tar", tmp_path / "c"
    killed = start(tmp_path, "-c", FETCH, url, str(cache), program=(sys.executable,))
    wait_until(lambda: any(cache.glob("*/*.part")), killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert any(cache.glob("*/*.part"))
    server.goes_on.set()
    (place,) = fetch_with(server, cache, 0)
    assert place.read_bytes() == (tmp_path / "web/train-0.tar").read_bytes()
    assert {path.suffix for path in place.parent.iterdir()} == {".tar", ".json"}


def test_who_holds_a_shard_and_brings_nothing_is_not_waited_for_for_ever(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(fetching, "POLL_SECONDS", 0.01)
    (place,) = fetch_with(server, tmp_path / "c", 0)
    place.unlink()
    part = place.with_name(f"{place.name}.{files.owner_tag()}.part")
    part.write_bytes(b"of somebody who lives")
    with lock.turn_by_file(place.with_name(f".{place.name}.lock")) as is_ours:
        assert is_ours
        fetch_with(server, tmp_path / "c", 0)
    assert place.read_bytes() == (tmp_path / "web/train-0.tar").read_bytes()
    assert part.exists()


def test_a_shard_in_the_cache_that_lost_bytes_is_fetched_again_and_said_so_once(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place,) = fetch_with(server, tmp_path / "c", 0)
    data = place.read_bytes()
    place.write_bytes(data[:-1])
    fetch_with(server, tmp_path / "c", 0)
    assert place.read_bytes() == data
    assert caplog.text.count(f"has {len(data) - 1} bytes, not {len(data)}: it is fetched") == 1


@pytest.mark.parametrize(
    ("then", "now", "is_other"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}, True),
        ({"Last-Modified": "yesterday"}, {"Last-Modified": "today"}, True),
        ({"ETag": '"1"', "Last-Modified": "a"}, {"ETag": '"1"', "Last-Modified": "b"}, False),
        ({"ETag": '"1"', "Last-Modified": "a"}, {"ETag": '"2"', "Last-Modified": "a"}, False),
        ({}, {"ETag": '"2"'}, False),
    ],
)
def test_shards_of_two_versions_are_not_mixed(
    server: Server, tmp_path: Path, then: dict[str, str], now: dict[str, str], is_other: bool
) -> None:
    server.told = then
    fetch_with(server, tmp_path / "c", 0)
    server.told = now
    if not is_other:
        assert len(fetch_with(server, tmp_path / "c", 0, 1)) == 2
        return
    with pytest.raises(InputError, match=r"train-0\.tar: is another version .* remove ") as caught:
        fetch_with(server, tmp_path / "c", 0, 1)
    assert caught.value.exit_code == 3
    assert server.asked == ["train-0.tar"]


def test_a_shard_of_another_size_is_another_version(server: Server, tmp_path: Path) -> None:
    fetch_with(server, tmp_path / "c", 0)
    labelled_shard(tmp_path / "web/train-0.tar", {f"{number}": 0 for number in range(20)})
    with pytest.raises(InputError, match="is another version"):
        fetch_with(server, tmp_path / "c", 0, 1)


def test_a_server_that_tells_nothing_but_files_is_enough(server: Server, tmp_path: Path) -> None:
    fetch_with(server, tmp_path / "c", 0)
    (tmp_path / "web/train-0.tar").unlink()  # HEAD of it fails
    assert len(fetch_with(server, tmp_path / "c", 0, 1)) == 2
