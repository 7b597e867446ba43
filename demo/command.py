"""Run the command line as a user would, and read the result that it prints."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import Any


class CommandFailedError(Exception):
    """A command ended badly; it has already said why on stderr."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(f"exit code {exit_code}")


def losa(*words: str) -> dict[str, Any]:
    """Run ``losa`` with a verb and its flags; returns the JSON object of its last stdout line.

    Raises:
        CommandFailedError: the command returned another exit code than 0.
    """
    print(f"\n$ losa {shlex.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "losa", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise CommandFailedError(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
