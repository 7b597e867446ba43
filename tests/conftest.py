"""What holds for every test: one thread, no network, no hub."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.command import Losa, Result

# Before torch loads: tests are small, and two pools of spinning threads cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

# Before decord, whose older FFmpeg would otherwise lend PyAV its encoders.
if importlib.util.find_spec("av"):
    import av  # noqa: F401 -- for its libraries


@pytest.fixture(autouse=True)
def refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves this process's machine is an error of the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What a command of one test shows or hides does not reach the next test."""
    logger = logging.getLogger("losa")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def losa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Losa:
    """Run the command line inside this process."""

    def run(*arguments: object) -> Result:
        # Not above: the store's tests run where there is no typer and no torch.
        from losa import cli

        monkeypatch.setattr(sys, "argv", ["losa", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    return run
