"""Claims of losa.flags: one declaration serves every verb that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from losa import flags
from losa.cli import app
from losa.config import ExtractConfig


def options_of(verb: str) -> dict[str, tuple[str, ...]]:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]  # a group
    return {item.name: tuple(item.opts) for item in command.params}


def test_a_verb_is_called_with_what_was_given_and_none_for_the_rest() -> None:
    got: dict[str, Any] = {}

    @flags.taking(flags.EXTRACT)
    def verb(**given: Any) -> None:
        got.update(given)

    one = typer.Typer()
    one.command()(verb)
    words = ["--model", "m", "--split", "train", "--split", "val", "-b", "7", "--overwrite"]
    assert CliRunner().invoke(one, words).exit_code == 0
    assert {name: value for name, value in got.items() if value} == {
        "model": "m", "split": ["train", "val"], "batch_size": "7", "overwrite": True,
    }  # fmt: skip
    assert set(got) == set(flags.EXTRACT)


def test_every_flag_of_extract_is_a_field_of_its_configuration() -> None:
    assert set(flags.EXTRACT) - {"config"} <= set(ExtractConfig.model_fields)


def test_plan_takes_every_flag_of_extract_that_says_what_is_computed() -> None:
    extract, plan = options_of("extract"), options_of("plan")
    priced = {name: names for name, names in extract.items() if name not in flags.FLEET}
    assert priced.items() <= plan.items()
    assert set(plan) - set(priced) == {"probe", "budget"}


def test_the_default_shown_is_the_configurations_own() -> None:
    assert flags.flag("", "--seed", of=ExtractConfig).show_default == "0"
    assert flags.flag("", "--img-size", of=ExtractConfig).show_default is False


def test_what_was_given_are_values_without_the_files_name() -> None:
    raw = {"store": Path("s"), "split": [], "taps": None, "config": Path("c.yaml"), "seed": 0}
    assert flags.given(raw) == {"store": Path("s"), "seed": 0}
