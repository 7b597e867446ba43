"""Parallel coordinates."""

from __future__ import annotations

from itertools import pairwise

from losa.report.markup import written
from losa.report.parallel import parallel, pole
from losa.report.ranking import CRITERIA, Setting, settings_of
from tests.report.made import Page, trial

SWEPT = settings_of(
    [
        trial("a", 0.5, config={"rank": 1, "lr": 0.1}),
        trial("b", 0.75, config={"rank": 8, "lr": 0.1}),
        trial("c", 0.25, config={"rank": 1, "lr": 0.001}),
    ],
    CRITERIA[0],
)


def ends(page: Page) -> dict[str, list[list[float]]]:
    """Corners of each setting's line."""
    return {
        each["data-setting"] or "": [
            [float(part) for part in corner.split(",")] for corner in (each["points"] or "").split()
        ]
        for each in page.of("polyline")
    }


def drawn() -> Page:
    figure = parallel(SWEPT, CRITERIA[0])
    assert figure is not None
    return Page(written(figure))


def test_a_line_goes_through_its_values_to_what_it_reached() -> None:
    found = ends(drawn())
    best, middle, worst = (found[number] for number in ("1", "2", "3"))
    assert [len(each) for each in (best, middle, worst)] == [3, 3, 3]
    # Up is less: rank 8 above rank 1, the rate 0.1 above 0.001, and val by its size.
    assert best[0][1] < middle[0][1] == worst[0][1]
    assert best[1][1] == middle[1][1] < worst[1][1]
    assert best[2][1] < middle[2][1] < worst[2][1]


def test_the_winner_is_drawn_last_and_thick() -> None:
    kinds = [each["class"] for each in drawn().of("polyline")]
    assert kinds == ["way way0", "way way4", "winner"]


def test_axes_are_named_and_have_ticks() -> None:
    assert {"rank", "lr", "val top1 (%)", "0.001", "8"} <= set(drawn().texts)


def test_many_numbers_stand_by_their_logarithm_and_words_below_them() -> None:
    values: list[object] = [10.0**-power for power in range(9)]
    settings = [Setting(1, {"lr": value}, ()) for value in (*values, "auto")]
    found = pole(settings, "lr")
    heights = [found.height(value) for value in values]
    gaps = [after - before for before, after in pairwise(heights)]
    assert max(gaps) - min(gaps) < 0.05
    assert found.height("auto") > max(heights)
    assert "auto" in [text for _, text in found.ticks]


def test_a_lower_loss_stands_higher() -> None:
    criterion = CRITERIA[-1]
    made = settings_of(
        [trial(f"{r}", 0.5, loss=1.0 + r, config={"rank": r, "lr": 0.5 * r}) for r in (1, 2)],
        criterion,
    )
    figure = parallel(made, criterion)
    assert figure is not None
    found = ends(Page(written(figure)))
    assert found["1"][-1][1] < found["2"][-1][1]


def test_one_field_or_one_setting_needs_no_such_plot() -> None:
    assert parallel(SWEPT[:1], CRITERIA[0]) is None
    one = settings_of([trial(f"{r}", 0.5, config={"rank": r}) for r in (1, 2)], CRITERIA[0])
    assert parallel(one, CRITERIA[0]) is None
