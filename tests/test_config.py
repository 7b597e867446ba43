"""Claims of losa.config."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from losa.config import MAX_CONFIG_BYTES, AdaptConfig, ExtractConfig, checked, load_yaml, to_yaml
from losa.errors import InputError, UsageError

NEEDED = {"model": "toy", "dataset": "folder:x"}


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, "rank: 4\nepochs: 7\n")
    found = checked(AdaptConfig, {"rank": 2, "epochs": None}, file)
    assert (found.rank, found.epochs, found.batch_size) == (2, 7, AdaptConfig().batch_size)


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert checked(AdaptConfig, {}, yaml_file(tmp_path, "lr: 3e-4\n")).lr == 3e-4


def test_names_of_a_file_may_be_hyphenated_like_flags(tmp_path: Path) -> None:
    assert checked(AdaptConfig, {}, yaml_file(tmp_path, "weight-decay: 0.5\n")).weight_decay == 0.5


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        checked(AdaptConfig, {"rank": 0, "lr": -1.0, "pool": "max"})
    for name in ("--rank", "--lr", "--pool"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flag_that_is_needed_is_asked_for_by_name() -> None:
    with pytest.raises(UsageError, match="--dataset is needed, --model is needed"):
        checked(ExtractConfig, {})


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    file = yaml_file(tmp_path, "wieght_decay: 1\n")
    with pytest.raises(InputError, match=r"did you mean weight_decay\?") as caught:
        checked(AdaptConfig, {}, file)
    assert caught.value.subject == str(file)


@pytest.mark.parametrize(
    "text",
    [
        "rank: 1\nrank: 2\n",
        "- a\n- b\n",
        "1: x\n",
        "a: [1\n",
        "a: !!python/object/apply:os.getcwd []\n",
        "pool: no\n",
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = yaml_file(tmp_path, text)
    with pytest.raises(InputError) as caught:
        checked(AdaptConfig, {}, file)
    assert caught.value.subject == str(file)
    assert "\n" not in str(caught.value)


def test_a_missing_and_an_oversized_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_yaml(tmp_path / "gone.yaml")
    file = yaml_file(tmp_path, "#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(InputError, match="larger than"):
        load_yaml(file)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert checked(AdaptConfig, {}, yaml_file(tmp_path, "# all defaults\n")) == AdaptConfig()


@pytest.mark.parametrize(("given", "share"), [("1%", 0.01), ("0.5%", 0.005), (0.25, 0.25)])
def test_a_share_may_be_a_percentage(given: Any, share: float) -> None:
    assert checked(ExtractConfig, {**NEEDED, "max_skip": given}).max_skip == pytest.approx(share)


@pytest.mark.parametrize("given", ["many%", "200%", -0.1])
def test_a_share_outside_0_to_1_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="--max-skip"):
        checked(ExtractConfig, {**NEEDED, "max_skip": given})


def test_auto_or_a_number_but_nothing_else() -> None:
    assert checked(ExtractConfig, {**NEEDED, "batch_size": "auto"}).batch_size == "auto"
    assert checked(ExtractConfig, {**NEEDED, "batch_size": "16"}).batch_size == 16
    with pytest.raises(UsageError, match="--batch-size"):
        checked(ExtractConfig, {**NEEDED, "batch_size": "0"})


def test_the_data_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSA_DATA", "/somewhere")
    assert checked(ExtractConfig, NEEDED).data_dir == Path("/somewhere")
    monkeypatch.delenv("LOSA_DATA")
    assert checked(ExtractConfig, NEEDED).data_dir == Path("data")


@pytest.mark.parametrize(
    "config",
    [
        AdaptConfig(rank=3, out=Path("r"), val_fraction=0.0),
        ExtractConfig(model="toy", dataset="folder:x", split=("train",)),
    ],
)
def test_a_configuration_comes_back_from_its_yaml(
    tmp_path: Path, config: AdaptConfig | ExtractConfig
) -> None:
    assert checked(type(config), {}, yaml_file(tmp_path, to_yaml(config))) == config


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        AdaptConfig().rank = 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 2024-99-99\n", "month must be in"),
        ("lr: " + "[" * 60_000, "mend the file"),
        ("lr: .inf\n", "--lr"),
        ("weight-decay: 1\nweight_decay: 2\n", "gives one name twice"),
    ],
    ids=["impossible date", "deep", "infinite", "both spellings"],
)
def test_a_file_that_yaml_itself_trips_over_is_named(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        checked(AdaptConfig, {}, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("kind", "name", "most"),
    [
        (ExtractConfig, "seed", 2**63 - 1),
        (AdaptConfig, "seed", 2**63 - 1),
        (ExtractConfig, "shard_rows", 1024),
        (ExtractConfig, "batch_size", 65_536),
        (AdaptConfig, "batch_size", 65_536),
        (ExtractConfig, "img_size", 16_384),
        (ExtractConfig, "num_workers", 1024),
        (AdaptConfig, "read_threads", 1024),
        (AdaptConfig, "prefetch", 1024),
        (AdaptConfig, "rank", 65_536),
        (AdaptConfig, "token_rank", 65_536),
        (AdaptConfig, "time_rank", 65_536),
        (AdaptConfig, "clip_frames", 1024),
        (AdaptConfig, "epochs", 1_000_000_000),
    ],
)
def test_a_whole_number_has_a_most(
    kind: type[ExtractConfig] | type[AdaptConfig], name: str, most: int
) -> None:
    needed = NEEDED if kind is ExtractConfig else {}
    assert getattr(checked(kind, {**needed, name: most}), name) == most
    for beyond in (most + 1, 2**70, 16**5000, "9" * 5000):
        with pytest.raises(UsageError, match="--" + name.replace("_", "-")) as caught:
            checked(kind, {**needed, name: beyond})
        assert len(str(caught.value)) < 400


def test_a_hexadecimal_number_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--seed"):
        checked(AdaptConfig, {}, yaml_file(tmp_path, f"seed: 0x{'f' * 4000}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)),
        "pool: &a cls\n",
        "pool: &a [*a]\n",
        "<<: {rank: 2}\n",
        "? [a]\n: 1\n",
        "rank: 1" + ":59" * 20_000,
        "pool: " + "x" * 60_000,
        "pool: [" + "[]," * 20_000 + "]\n",
        "".join(f"{n * (2**61 - 1)}: 0\n" for n in range(2_500)),
        '"a\\nb": 1\n',
        "pool: !!timestamp cls\n",
        "pool: !!bool cls\n",
        "pool: !!int ''\n",
        "!!str [a]: 1\n",
        "pool: !!map cls\n",
    ],
    ids=[
        *("bomb", "anchor", "loop", "merge", "list", "sixty", "long", "wide", "numbers", "newline"),
        *("timestamp", "bool", "int", "text", "map"),
    ],
)
def test_a_hostile_file_is_refused_soon_and_in_one_short_line(tmp_path: Path, text: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        checked(AdaptConfig, {}, yaml_file(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.process_time() - started < 20


def test_many_unknown_names_are_counted_and_not_all_listed(tmp_path: Path) -> None:
    started = time.process_time()
    text = "".join(f"k{number}: 0\n" for number in range(7_000))
    with pytest.raises(InputError, match=r"--k0 is not known.* and 6,9\d\d more") as caught:
        checked(AdaptConfig, {}, yaml_file(tmp_path, text))
    assert len(str(caught.value)) < 2000
    assert time.process_time() - started < 20
