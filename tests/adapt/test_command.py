"""The winner's command trains what the winner was."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from losa.adapt.command import WITHOUT_FLAG, adapt_command
from losa.cli import app
from losa.config import AdaptConfig, to_yaml
from tests.command import Losa

CHANGED: dict[str, Any] = {
    "adaptor": "lst", "taps": "last:2", "rank": 3, "token_rank": 4, "order": "token-channel",
    "residual": "sum", "start": "first", "share_mixers": True, "init_scale": 0.5,
    "mixer_norm": True, "pool": "mean", "standardise": "raw", "dropout": 0.25,
    "width": 16, "lr": 1.5e-5, "weight_decay": 0.0, "epochs": 7, "batch_size": 9,
    "label_smoothing": 0.0, "mixup": 0.5, "ema": 0.75, "head_lr": 0.125, "patience": 2,
    "head_weight_decay": 0.5, "class_weights": "balanced", "regression_loss": "mse",
    "val_fraction": 0.25, "seed": 11, "data_seed": 5, "amp_dtype": "none",
    "token_mixing": "time", "token_order": "time-space", "time_rank": 6, "clip_frames": 4,
    "clip_stride": 2, "targets": Path("a table.csv"), "store": Path("my store's.zarr"),
}  # fmt: skip


@pytest.fixture
def trained(losa: Losa, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command of losa adapt up to its configuration."""
    import losa.adapt.train as training

    seen: list[AdaptConfig] = []

    class Report:
        def to_json(self) -> dict[str, Any]:
            return {}

    def noted(config: AdaptConfig, **_: Any) -> Report:
        seen.append(config)
        return Report()

    monkeypatch.setattr(training, "adapt", noted)

    def run(command: str) -> AdaptConfig:
        program, *words = shlex.split(command)
        assert program == "losa"
        assert losa(*words).code == 0
        return seen[-1]

    return run


def test_a_command_of_flags_comes_back_as_the_same_configuration(trained: Any) -> None:
    config = AdaptConfig(**CHANGED)
    found = trained(adapt_command(config.model_dump(mode="json"), Path("run"), Path("new")))
    assert found == config.model_copy(update={"out": Path("new")})


@pytest.mark.parametrize("name", CHANGED)
def test_each_field_alone_comes_back(trained: Any, name: str) -> None:
    config = AdaptConfig(**{name: CHANGED[name]})
    found = trained(adapt_command(config.model_dump(mode="json"), Path("run"), Path("new")))
    assert found == config.model_copy(update={"out": Path("new")})


def test_what_has_no_flag_is_left_to_the_file(trained: Any, tmp_path: Path) -> None:
    config = AdaptConfig(clip=0.5, rank=3, out=tmp_path)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = adapt_command(config.model_dump(mode="json"), tmp_path, Path("new"))
    assert command == f"losa adapt --store features.zarr --config {tmp_path}/config.yaml --out new"
    assert trained(command) == config.model_copy(update={"out": Path("new")})


def test_the_fields_without_a_flag_are_those_that_adapt_has_none_for() -> None:
    (adapt,) = (
        each
        for name, each in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]  # a group
        if name == "adapt"
    )
    flags = {item.name for item in adapt.params}
    assert set(AdaptConfig.model_fields) - flags | {"live"} == WITHOUT_FLAG
    assert set(CHANGED) | WITHOUT_FLAG >= set(AdaptConfig.model_fields) - {
        "out", "overwrite", "device", "read"
    }  # fmt: skip


def test_where_things_lie_and_how_fast_they_go_is_left_out() -> None:
    config = AdaptConfig(device="cpu", read="mmap", prefetch=7, out=Path("old"), overwrite=True)
    found = adapt_command(config.model_dump(mode="json"), Path("run"), Path("new"))
    assert found == "losa adapt --store features.zarr --out new"


def test_what_no_flag_can_say_is_left_to_the_file() -> None:
    config = {**AdaptConfig(rank=3).model_dump(mode="json"), "dropout": None}
    assert "--config run/config.yaml" in adapt_command(config, Path("run"), Path("new"))


def test_a_run_without_a_store_is_told_of_none() -> None:
    config = {**AdaptConfig().model_dump(mode="json"), "live": {"model": "vit_s"}}
    found = adapt_command(config, Path("run"), Path("new"))
    assert found == "losa adapt --config run/config.yaml --out new"


def test_a_command_survives_yaml() -> None:
    config = AdaptConfig(rank=3, lr=1e-5).model_dump(mode="json")
    again = yaml.safe_load(yaml.safe_dump(config))
    found = [adapt_command(one, Path("run"), Path("new")) for one in (config, again)]
    assert found[0] == found[1]
