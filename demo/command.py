"""Run the command line as a user would, and read the result that it prints; programs that do."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from losa.errors import LosaError

Arguments = ParamSpec("Arguments")
_INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""


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


def program(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """A main whose mistakes cost one line on stderr and their exit code, as those of ``losa`` do.

    Example:
        >>> @program
        ... def main() -> int:
        ...     raise CommandFailedError(4)
        >>> main()
        4
    """

    @wraps(main)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except LosaError as error:
            print(f"losa: error: {error}", file=sys.stderr)
            return error.exit_code
        except CommandFailedError as error:
            return error.exit_code
        except KeyboardInterrupt:
            return _INTERRUPTED

    return guarded
