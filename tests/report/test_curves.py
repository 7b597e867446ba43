"""Learning curves."""

from __future__ import annotations

from losa.report.curves import curves, series_of
from losa.report.markup import written
from losa.report.ranking import CRITERIA, settings_of
from tests.report.made import Page, trial


def line(epoch: int, val: float | None, loss: float = 1.0) -> dict[str, object]:
    scores = None if val is None else {"top1": val, "loss": 2 * loss}
    return {"epoch": epoch, "train_loss": loss, "val": scores}


def test_a_line_is_the_mean_over_the_seeds_that_reached_an_epoch() -> None:
    long = trial("a", config={"seed": 0}, curve=(line(1, 0.25), line(2, 0.5)))
    short = trial("b", config={"seed": 1}, curve=(line(1, 0.75),))
    (found,) = series_of(settings_of([long, short], CRITERIA[0]), lambda each: each["val"]["top1"])
    assert found.points == ((1.0, 0.5), (2.0, 0.5))
    assert found.setting == 1


def test_a_dropped_trial_is_left_out_of_what_others_survived() -> None:
    whole = trial("a", config={"seed": 0}, curve=(line(1, 0.25),))
    lost = trial("b", None, config={"seed": 1}, curve=(line(1, 0.75),), reason="diverged")
    settings = settings_of([whole, lost], CRITERIA[0])
    assert series_of(settings, lambda each: each["val"]["top1"])[0].points == ((1.0, 0.25),)


def test_one_setting_has_train_and_val_loss_side_by_side() -> None:
    settings = settings_of([trial("a", curve=(line(1, 0.5), line(2, 0.5)))], CRITERIA[0])
    val, loss = (Page(written(figure)) for figure in curves(settings, CRITERIA[0]))
    assert len(val.of("polyline")) == 1
    assert len(loss.of("polyline")) == 2
    assert {"train", "val"} <= set(loss.texts)


def test_what_was_never_looked_at_has_no_curve() -> None:
    settings = settings_of([trial("a", None, test=0.5, curve=(line(1, None),))], CRITERIA[0])
    (only,) = curves(settings, CRITERIA[0])
    assert "mean loss of a sample" in Page(written(only)).texts
    assert curves(settings_of([trial("a")], CRITERIA[0]), CRITERIA[0]) == []
