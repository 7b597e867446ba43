"""The event that callers see."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from losa.adapt.progress import ProgressEvent


def test_an_event_cannot_be_changed_by_who_gets_it() -> None:
    event = ProgressEvent("train", 0, 3, 1, 6)
    assert event.metrics == {}
    with pytest.raises(FrozenInstanceError):
        event.step = 2  # type: ignore[misc]  # frozen: the claim
