"""One page that needs nothing else and runs nothing of a stranger's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from losa.report.page import page_of, story_of
from losa.report.trials import Found, Trial, read_folder
from tests.report.made import Page, trial
from tests.report.test_markup import HOSTILE

VOID = {"meta"}


def page(*trials: Trial, path: str = "sweep") -> Page:
    return Page(page_of(story_of(Found("sweep", Path(path), trials))))


def test_a_page_of_a_sweep_has_all_its_parts(sweep: Path) -> None:
    found = Page(page_of(story_of(read_folder(sweep))))
    for words in ("Ranking", "Learning", "What was swept", "What accuracy costs"):
        assert words in found.texts
    captions = found.text
    assert "rank" in captions
    for words in ("test against trainable parameters", "test against inference of one image"):
        assert words in found.texts
    # What every trial has alike is said, and not drawn.
    assert "store bytes a sample:" in captions
    assert "test against store bytes a sample" not in found.texts


def test_a_page_asks_for_nothing_from_anywhere(sweep: Path) -> None:
    text = page_of(story_of(read_folder(sweep)))
    found = Page(text)
    links = {"src", "href", "srcset", "action", "data", "style"}
    assert not [each for _, each in found.tags if links & each.keys()]
    assert not re.search(r"https?://|@import|url\(", text)
    names = {tag for tag, _ in found.tags}
    assert not names & {"link", "iframe", "img", "object", "embed", "base", "form"}


def test_the_policy_lets_the_pages_own_style_and_script_act_and_no_other(sweep: Path) -> None:
    import base64
    import hashlib

    text = page_of(story_of(read_folder(sweep)))
    policy = str(Page(text).of("meta")[1]["content"])
    assert policy.startswith("default-src 'none'; ")
    for kind in ("style", "script"):
        ((source),) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_names_of_users_do_not_act_wherever_they_stand() -> None:
    for text in HOSTILE:
        made = [
            trial(
                text,
                0.25 * at,
                config={"store": text, "adaptor": text + str(at), "rank": at, text: at},
                backbone=text,
                reason=text if at == 2 else None,
                curve=({"epoch": 1, "train_loss": 1.0, "val": {"top1": 0.5}},),
                seconds=float(at),
            )
            for at in (1, 2, 3)
        ]
        found = page(*made, path=text.replace("/", "_"))
        assert len(found.of("script")) == 1
        assert not found.of("img")
        assert not [each for _, each in found.tags if any(name.startswith("on") for name in each)]
        assert text in found.text


def test_every_element_is_closed_and_every_place_a_number(sweep: Path) -> None:
    text = page_of(story_of(read_folder(sweep)))
    for tag, _ in Page(text).tags:
        if tag not in VOID:
            assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<style>.*?</style>", "", text, flags=re.S))


def test_the_same_files_are_the_same_page(sweep: Path) -> None:
    assert page_of(story_of(read_folder(sweep))) == page_of(story_of(read_folder(sweep)))


def test_dropped_and_unfinished_trials_are_said() -> None:
    made = (trial("a", 0.5, config={"rank": 1}),
            trial("gone", None, config={"rank": 2}, reason="diverged in epoch 3"))  # fmt: skip
    story = story_of(Found("sweep", Path("s"), made, unfinished=4))
    found = Page(page_of(story))
    assert "diverged in epoch 3" in found.texts
    assert found.texts[found.texts.index("not ended yet") - 1] == "4"
    assert found.texts[found.texts.index("dropped") - 1] == "1"


def test_without_val_no_winner_is_named() -> None:
    made = tuple(trial(f"{r}", None, test=0.5, config={"rank": r}) for r in (1, 2))
    found = page(*made)
    assert "nothing was chosen" in found.text
    assert "The winner's command" not in found.texts
    assert not [each for each in found.of("tr") if each.get("class") == "best"]


def test_the_front_of_a_loss_is_its_lower_side() -> None:
    made = tuple(
        Trial(f"{r}", {"rank": r}, {s: {"loss": loss} for s in ("val", "test")}, seconds=float(r))
        for r, loss in ((1, 0.5), (2, 0.25), (3, 0.75))
    )
    found = page(*made)
    best = [each for each in found.of("circle") if each["class"] == "dot best"]
    # Two of the points, and the one in the legend.
    assert len(best) == 3


def test_a_page_of_a_run_tells_how_to_train_it_again(sweep: Path) -> None:
    story = story_of(read_folder(sweep / "trials" / "1-0.1-0"))
    found = Page(page_of(story))
    assert "Train it again" in found.texts
    assert story.command in found.texts
    assert "Ranking" not in found.texts


def test_a_winner_that_was_dropped_is_none() -> None:
    made = trial("a", 0.5, config={"rank": 1}, reason="left behind")
    story = story_of(Found("sweep", Path("s"), (made, replace(made, name="b"))))
    assert story.command is None


def test_what_halving_left_behind_is_no_dropped_trial() -> None:
    left = {"reason": "left behind by halving after epoch 2", "is_left": True, "epochs": 2}
    made = (
        trial("a", 0.5, config={"rank": 1}, epochs=6),
        trial("b", 0.75, test=None, config={"rank": 2}, **left),
    )
    story = story_of(Found("sweep", Path("s"), made))
    found = Page(page_of(story))
    assert story.winner == made[0]
    assert found.texts[found.texts.index("left behind by halving") - 1] == "1"
    assert "left at epoch 2" in found.texts
    assert "dropped" not in found.texts
    assert "Dropped" not in found.texts
