"""Every mistake losa can name, with the exit code the command line returns for it.

An error is one line, ``<file or flag>: <what>; <what to do>``: the subject that was asked for, what
was found, and the remedy. Exit codes are part of the contract and listed in ``docs/api.md``.
"""

from __future__ import annotations


class LosaError(Exception):
    """A mistake with a known cause and a known remedy.

    Example:
        >>> str(LosaError("--rank", "0 is not a width", "give 1 or more"))
        '--rank: 0 is not a width; give 1 or more'
    """

    exit_code = 1

    def __init__(self, subject: object, what: str, todo: str = "") -> None:
        self.subject = str(subject)
        self.what = what
        self.todo = todo
        super().__init__(f"{self.subject}: {what}" + (f"; {todo}" if todo else ""))


class UsageError(LosaError, ValueError):
    """A flag or an argument that cannot be meant (exit 2)."""

    exit_code = 2


class InputError(LosaError, ValueError):
    """Input data, a configuration or a weights file that cannot be used (exit 3)."""

    exit_code = 3


class StoreError(LosaError, OSError):
    """A store or a run that is missing, damaged, unsealed or newer than this losa (exit 4)."""

    exit_code = 4


class MismatchError(LosaError, ValueError):
    """Two things that must agree do not: plan, weights, preprocessing or labels (exit 5)."""

    exit_code = 5


class ResourceError(LosaError, OSError):
    """Disk, memory, device, network or permission is lacking (exit 6)."""

    exit_code = 6


class LockedError(LosaError, OSError):
    """Another live process holds what was asked for (exit 7)."""

    exit_code = 7


class SkippedError(LosaError):
    """The work is done, with more skips or failures than were allowed (exit 8)."""

    exit_code = 8


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python or of torch says that memory is lacking, here or on a device.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    # Torch has a class for CUDA's; a CPU's, and that of libraries on a device, have only words.
    words = ("allocate memory", "out of memory", "ALLOC_FAILED")
    is_known = "OutOfMemory" in type(error).__name__ or any(one in str(error) for one in words)
    return isinstance(error, RuntimeError) and is_known


class StoppedError(LosaError):
    """The command was told to end and has, in good order; started again it goes on (exit 75).

    An interrupt by Ctrl-C costs exit code 130 instead.
    """

    exit_code = 75

    def __init__(
        self, subject: object, what: str, todo: str = "", *, is_interrupt: bool = False
    ) -> None:
        super().__init__(subject, what, todo)
        if is_interrupt:
            self.exit_code = 130
