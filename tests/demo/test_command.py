from __future__ import annotations

import subprocess
import sys

import pytest

from demo.command import CommandFailedError, losa


def answer(monkeypatch: pytest.MonkeyPatch, code: int, stdout: str) -> list[list[str]]:
    """Let every process end with ``code`` and ``stdout``; returns the commands as they come."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, code, stdout)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_command_is_printed_and_its_last_line_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = answer(monkeypatch, 0, 'words\n{"top1": 0.5}\n')
    assert losa("evaluate", "--run", "my run") == {"top1": 0.5}
    assert capsys.readouterr().out == "\n$ losa evaluate --run 'my run'\n"
    assert commands == [[sys.executable, "-m", "losa", "evaluate", "--run", "my run"]]


def test_a_failed_command_passes_its_exit_code_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 4, "")
    with pytest.raises(CommandFailedError) as caught:
        losa("adapt")
    assert caught.value.exit_code == 4
