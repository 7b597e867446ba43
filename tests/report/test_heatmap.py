"""Cells of two swept fields."""

from __future__ import annotations

from losa.report.heatmap import best_cells, field_pairs, heatmap, ordered
from losa.report.markup import written
from losa.report.ranking import CRITERIA, Setting, settings_of
from tests.report.made import Page, trial


def grid(**scores: float) -> tuple[Setting, ...]:
    """Settings of rank, rate and order by names such as ``r1_l2_a``."""
    made = []
    for name, score in scores.items():
        rank, lr, order = name.split("_")
        config = {"rank": int(rank[1:]), "lr": float(lr[1:]), "order": order}
        made.append(trial(name, score, config=config))
    return settings_of(made, CRITERIA[0])


FULL = grid(r1_l2_a=0.5, r1_l3_a=0.25, r4_l2_a=0.75, r4_l3_a=0.125, r4_l3_b=0.875)


def test_a_cell_is_the_best_of_its_two_values() -> None:
    best = best_cells(FULL, "rank", "lr")
    assert sorted(one.trials[0].name for one in best.values()) == [
        "r1_l2_a", "r1_l3_a", "r4_l2_a", "r4_l3_b",
    ]  # fmt: skip


def test_values_stand_by_size_and_words_behind_them() -> None:
    settings = [Setting(1, {"x": value}, ()) for value in (8, "auto", 2.5, None, True, 1)]
    assert ordered(settings, "x") == [1, 2.5, 8, "auto", None, True]


def test_fields_that_were_not_swept_against_each_other_have_no_heatmap() -> None:
    assert field_pairs(FULL) == [("rank", "lr"), ("rank", "order"), ("lr", "order")]
    diagonal = grid(r1_l1_a=0.1, r2_l2_a=0.2, r3_l3_a=0.3, r4_l4_a=0.4)
    assert field_pairs(diagonal) == []
    assert field_pairs(()) == []


def test_cells_tell_values_shades_and_gaps() -> None:
    made = grid(r1_l2_a=0.5, r1_l3_a=0.25, r4_l2_a=0.75)
    figure = heatmap(made, CRITERIA[0], ("rank", "lr"))
    assert figure is not None
    page = Page(written(figure))
    kinds = [each["class"] for each in page.of("rect")]
    assert kinds == ["cell shade4", "cell shade0", "cell shade8", "cell none"]
    assert {"50.0", "25.0", "75.0", "-"} <= set(page.texts)
    assert "rank 4, lr 2: 75.00" in page.texts


def test_of_losses_the_lower_has_the_deeper_shade() -> None:
    criterion = CRITERIA[-1]
    made = settings_of(
        [trial(f"{r}", 0.1, loss=1.0 + r, config={"rank": r, "lr": 1.0 * (r % 2)}) for r in (0, 1)],
        criterion,
    )
    figure = heatmap(made, criterion, ("rank", "lr"))
    assert figure is not None
    kinds = [each["class"] for each in Page(written(figure)).of("rect")]
    assert kinds == ["cell shade8", "cell none", "cell none", "cell shade0"]


def test_without_val_there_is_no_heatmap() -> None:
    made = settings_of(
        [trial(f"{r}", None, test=0.5, config={"rank": r, "lr": 1.0 * r}) for r in (1, 2)],
        CRITERIA[0],
    )
    assert heatmap(made, CRITERIA[0], ("rank", "lr")) is None
