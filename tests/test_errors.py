"""Claims of losa.errors."""

from __future__ import annotations

import pytest

from losa import errors
from losa.errors import LosaError

# The contract, written out again: a script may depend on these numbers.
CODES = {
    "UsageError": (2, ValueError),
    "InputError": (3, ValueError),
    "StoreError": (4, OSError),
    "MismatchError": (5, ValueError),
    "ResourceError": (6, OSError),
    "LockedError": (7, OSError),
    "SkippedError": (8, Exception),
    "StoppedError": (75, Exception),
}


def test_every_error_has_its_documented_exit_code_and_no_other_exists() -> None:
    found = {kind.__name__: kind.exit_code for kind in LosaError.__subclasses__()}
    known = {name: code for name, code in found.items() if hasattr(errors, name)}
    assert known == {name: code for name, (code, _) in CODES.items()}


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), True),
        (RuntimeError("size mismatch"), False),
        (OSError("cannot allocate memory"), False),
    ],
)
def test_a_lack_of_memory_is_known_by_its_class_or_its_words(
    error: Exception, *, is_it: bool
) -> None:
    assert errors.is_out_of_memory(error) is is_it


@pytest.mark.parametrize("name", sorted(CODES))
def test_an_error_is_one_line_of_subject_what_and_remedy(name: str) -> None:
    kind = getattr(errors, name)
    error = kind("a/file", "is cut short", "fetch it again")
    assert str(error) == "a/file: is cut short; fetch it again"
    assert (error.subject, error.what, error.todo) == ("a/file", "is cut short", "fetch it again")


@pytest.mark.parametrize("name", sorted(CODES))
def test_an_error_is_also_the_built_in_that_it_refines(name: str) -> None:
    kind = getattr(errors, name)
    with pytest.raises(CODES[name][1]):
        raise kind("a", "b", "c")


def test_an_error_without_a_remedy_ends_after_what_was_found() -> None:
    assert str(LosaError("--rank", "0 is not a width")) == "--rank: 0 is not a width"
