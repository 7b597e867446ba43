"""A course's claims: when it is over, what it saves, and what it refuses to save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from losa.adapt.course import Course
from losa.adapt.metrics import SplitMetrics
from losa.adapt.rundir import RunDir
from losa.adapt.train import card_of
from losa.adapt.trial import Trial
from losa.config import AdaptConfig
from losa.device import resolve_compute
from losa.errors import InputError
from tests.adapt.memory_store import separable_store

SAMPLES = 40


class Tiny(nn.Module):
    """Planes of one tap to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(planes[0].mean(1))
        return logits


def course_in(folder: Path, **changes: Any) -> Course:
    config = AdaptConfig(out=folder, epochs=4, batch_size=16, device="cpu", **changes)
    run = RunDir.claim(config, card_of(separable_store(), config))
    torch.manual_seed(0)
    course = Course(run, Trial(Tiny(), config, 3, resolve_compute("cpu", "none")), SAMPLES)
    course.resume()
    return course


def train_epoch(course: Course) -> None:
    random = torch.Generator().manual_seed(course.position.epoch)
    for size in (16, 16, 8):
        planes = torch.randn(1, size, 2, 3, generator=random)
        course.trial.step(planes, torch.arange(size) % 2, course.position)
        course.stepped(size, 0.5)


def scored(top1: float) -> SplitMetrics:
    return SplitMetrics(top1, 1.0, 1.0, 0.5, 1.0, 8, 0)


def test_it_is_over_after_its_epochs(tmp_path: Path) -> None:
    course = course_in(tmp_path)
    seen = []
    while not course.is_over:
        train_epoch(course)
        course.end_epoch(None)
        seen.append(course.position.epoch)
    assert seen == [1, 2, 3, 4]
    report = course.report(None)
    assert report.timing["epochs"] == 4
    assert report.timing["samples_per_second"] == SAMPLES / 1.5


@pytest.mark.parametrize("patience", [0, 1])
def test_patience_0_and_1_end_at_the_first_epoch_that_is_no_better(
    tmp_path: Path, patience: int
) -> None:
    course = course_in(tmp_path, patience=patience)
    for top1 in (0.5, 0.4):
        assert not course.is_over
        train_epoch(course)
        course.end_epoch(scored(top1))
    assert course.is_over
    course.choose()
    assert course.report(scored(0.3)).metrics["val"]["top1"] == 0.5


def test_another_course_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    first = course_in(tmp_path)
    train_epoch(first)
    first.save()
    first.run.__exit__()
    second = course_in(tmp_path)
    assert second.position == first.position
    second.end_epoch(None)
    first.end_epoch(None)
    pairs = zip(first.trial.module.parameters(), second.trial.module.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    course = course_in(tmp_path)
    train_epoch(course)
    course.end_epoch(None)
    before = course.run.last.read_bytes()
    with torch.no_grad():
        next(course.trial.module.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        course.save()
    assert course.run.last.read_bytes() == before
