from __future__ import annotations

import subprocess
import sys

import pytest

from demo.command import CommandFailedError, losa, program
from losa.errors import UsageError


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


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            UsageError("--seeds", "0 are too few", "give 1"),
            2,
            "losa: error: --seeds: 0 are too few",
        ),
        (CommandFailedError(4), 4, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_mistake_ends_a_program_with_its_exit_code_and_at_most_one_line(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @program
    def main(argv: list[str]) -> int:
        raise error

    assert main([]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(told)
    assert printed.count("\n") == bool(told)


def test_what_is_no_mistake_of_a_user_is_not_hidden_by_a_program() -> None:
    @program
    def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()
