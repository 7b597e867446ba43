"""Claims of losa.extract.fetching, held against a server of this machine."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from losa.errors import InputError, ResourceError, UsageError
from losa.extract.datasets import load_dataset
from losa.extract.fetching import fetch_shards
from tests.extract.shards import labelled_shard


class Server:
    """Serves the files of a folder, but for those it was told to cut, and counts what is asked."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.cut: set[str] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/").partition("?")[0]
                server.asked.append(name)
                if not (folder / name).is_file():
                    self.send_error(404)
                    return
                data = (folder / name).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:1000] if name in server.cut else data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

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
    assert sorted(places[0].parent.iterdir()) == places


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
