"""Lines and points where they belong."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from losa.report import plots
from losa.report.markup import written
from losa.report.plots import SERIES, Labels, Point, Series, lines, points
from tests.report.made import Page

LABELS = Labels("test against time", "training time (s)", "test (%)", "s")
CSS = (Path(plots.__file__).parent / "page.css").read_text(encoding="utf-8")


def corners(attributes: dict[str, str | None]) -> list[tuple[float, float]]:
    found = re.findall(r"([-\d.]+),([-\d.]+)", attributes["points"] or "")
    return [(float(x), float(y)) for x, y in found]


def drawn_points() -> Page:
    found = [
        Point(1.0, 50.0, 2.0, "cheap", 3, is_front=True),
        Point(2.0, 40.0, None, "beaten", 4),
        Point(3.0, 90.0, 1.0, "dear", 5, is_front=True),
    ]
    return Page(written(points(LABELS, found)))


def test_a_better_value_stands_higher_and_a_dearer_one_further_right() -> None:
    discs = [
        (each["class"], float(each["cx"] or 0), float(each["cy"] or 0))
        for each in drawn_points().of("circle")
        if each["class"] != "reach"
    ][:3]
    other, cheap, dear = discs
    assert [one[0] for one in discs] == ["dot", "dot best", "dot best"]
    assert cheap[1] < other[1] < dear[1]
    assert dear[2] < cheap[2] < other[2]


def test_the_front_goes_by_steps_through_its_points_alone() -> None:
    page = drawn_points()
    (front,) = page.of("polyline")
    first, corner, second, end = corners(front)
    assert corner == (second[0], first[1])
    assert end == (plots.WIDTH - plots.RIGHT, second[1])


def test_axes_have_names_units_and_ticks() -> None:
    page = drawn_points()
    assert "training time (s)" in page.texts
    assert "test (%)" in page.texts
    assert "2 s" in page.texts
    assert (
        page.of("svg")[0]["aria-label"] == "test against time: test (%) against training time (s)"
    )


def test_a_point_tells_what_it_is_and_belongs_to_its_row() -> None:
    page = drawn_points()
    assert {"cheap", "beaten", "dear"} <= set(page.texts)
    assert {each["data-setting"] for each in page.of("g")} == {"3", "4", "5"}


def test_the_first_lines_have_a_colour_each_and_the_others_are_grey() -> None:
    places = range(9)
    series = [Series(f"n{at}", ((1.0, 1.0 * at), (2.0, at + 1.0)), at) for at in places]
    page = Page(written(lines(LABELS, series)))
    kinds = [each["class"] for each in page.of("polyline")]
    assert kinds.count("line other") == 9 - SERIES
    assert {f"line s{place}" for place in range(SERIES)} <= set(kinds)
    legend = [each for each in page.of("text") if each["class"] == "legend"]
    assert len(legend) == SERIES


def test_a_line_of_one_epoch_can_be_seen() -> None:
    page = Page(written(lines(LABELS, [Series("a", ((1.0, 2.0),), 1)])))
    assert len(corners(page.of("polyline")[0])) == 2


def test_every_kind_that_plots_use_has_its_style() -> None:
    for place in range(SERIES):
        assert f".s{place} {{ stroke: var(--s{place})" in CSS


Colour = tuple[float, float, float]


def colours(scheme: int) -> dict[str, Colour]:
    """The custom colours of the light (0) or the dark scheme (1), each part in 0..1 as coded."""
    block = CSS.split(":root {")[1 + scheme].partition("}")[0]
    found = re.findall(r"--(\w+): #(\w\w)(\w\w)(\w\w)", block)
    return {name: (int(r, 16) / 255, int(g, 16) / 255, int(b, 16) / 255) for name, r, g, b in found}


def contrast(one: Colour, other: Colour) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""
    lights = []
    for coded in (one, other):
        r, g, b = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in coded
        )
        lights.append(0.2126 * r + 0.7152 * g + 0.0722 * b)
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_in_both_schemes(scheme: int) -> None:
    found = colours(scheme)
    for ground in ("paper", "panel"):
        for ink in ("ink", "soft"):
            assert contrast(found[ink], found[ground]) >= 4.5
        for line in ("accent", "strong", *(f"s{place}" for place in range(SERIES))):
            assert contrast(found[line], found[ground]) >= 3.0, line


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_values_in_the_deepest_cell_can_be_read(scheme: int) -> None:
    found = colours(scheme)
    share = float(re.findall(r"\.shade8 \{ fill-opacity: ([.\d]+)", CSS)[0])
    # As browsers mix: the coded parts, not the light.
    pairs = zip(found["accent"], found["panel"], strict=True)
    r, g, b = (share * accent + (1 - share) * panel for accent, panel in pairs)
    assert contrast(found["ink"], (r, g, b)) >= 4.5


# Machado et al. 2009 (doi 10.1109/TVCG.2009.113), severity 1.0, on linear light.
BLINDNESS = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
               (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
               (-0.011820, 0.042940, 0.968881)),
}  # fmt: skip


def lab(coded: Colour, seen: tuple[Colour, Colour, Colour]) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as somebody sees it."""
    light = np.array([p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in coded])
    light = np.clip(np.array(seen) @ light, 0.0, 1.0)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(to_xyz @ light / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_neighbouring_series_differ_to_the_colour_blind(scheme: int, kind: str) -> None:
    found = colours(scheme)
    seen = [lab(found[f"s{place}"], BLINDNESS[kind]) for place in range(SERIES)]
    apart = [float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)]
    assert min(apart) > 20.0
    assert len({re.findall(rf"\.s{place} {{([^}}]*)}}", CSS)[0] for place in range(SERIES)}) == 6
