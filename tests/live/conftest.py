"""What holds for all tests of the live layer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.extract.drawn_once import models_drawn_once


@pytest.fixture(scope="session", autouse=True)
def _models_are_drawn_once() -> Iterator[None]:
    with models_drawn_once():
        yield
