"""Claims of losa.extract.estimate: the bill before anything is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from losa.config import ExtractConfig
from losa.errors import InputError, UsageError
from losa.extract.costing import Bill
from losa.extract.estimate import LISTED, Estimate, estimate
from tests.extract.picture_folder import picture_folder

# Terabytes of ViT-g/14 on iNaturalist 2018 by policy, from a table reckoned without this code; the
# first two there hold the embedding as a 41st tap.
TABLE = {
    ("all", "all", "float16"): 13.7,
    ("all", "all", "int8"): 6.9,
    ("auto", "all", "float16"): 3.34,
    ("auto", "all", "int8"): 1.67,
    ("auto", "pool:2x2", "float16"): 0.85,
    ("auto", "pool:2x2", "int8"): 0.42,
    ("every:10", "pool:2x2", "int8"): 0.17,
    ("auto", "pool:4x4", "float16"): 0.22,
    ("all", "summary", "float16"): 0.10,
    ("last", "all", "float16"): 0.33,
}


def priced(tmp_path: Path, budget: int | None = None, **changes: object) -> Estimate:
    values = {"model": "vit_g", "dataset": "inat2018", "data_dir": tmp_path / "none", **changes}
    return estimate(ExtractConfig.model_validate(values), budget=budget)


def test_the_table_of_policies_is_within_five_per_cent_of_the_one_reckoned_by_hand(
    tmp_path: Path,
) -> None:
    found: dict[tuple[str, str, str], Bill] = {
        (option.setting.taps, option.setting.tokens, option.setting.dtype): option.bill
        for option in priced(tmp_path).table
    }
    assert set(found) == set(TABLE)
    for setting, terabytes in TABLE.items():
        assert found[setting].total_bytes / 1e12 == pytest.approx(terabytes, rel=0.05)


def test_without_a_probe_no_time_is_made_up(tmp_path: Path) -> None:
    told = json.loads(json.dumps(priced(tmp_path).to_json()))
    unknown = ("forward_hours", "extract_hours", "write_rate", "read_rate", "break_even_taps")
    assert [told[name] for name in (*unknown, "probe", "room")] == [None] * 7
    assert (told["samples"], told["bytes"]) == (
        {"train": 437_513, "val": 24_426},
        461_939 * 10 * 257 * 1408 * 2,
    )
    assert "use --probe" in told["verdict"]


def test_data_that_are_here_are_counted(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "d", {"train": 4, "val": 1})
    found = priced(tmp_path, dataset=f"folder:{data}", views=3)
    assert (found.counts.samples, found.counts.source) == ({"train": 12, "val": 3}, LISTED)
    assert found.counts.rows == 12 * 3 + 3


def test_a_split_of_a_published_size_can_be_asked_for(tmp_path: Path) -> None:
    assert priced(tmp_path, split=("val",)).counts.rows == 24_426
    with pytest.raises(UsageError, match=r"--split: how many 'test' samples vtab/dtd has is not"):
        priced(tmp_path, dataset="vtab/dtd", split=("test",))


def test_data_that_are_neither_here_nor_known_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        priced(tmp_path, dataset=f"folder:{tmp_path / 'nowhere'}")


def test_a_setting_that_cannot_be_meant_is_refused_before_anything_is_listed(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="--taps"):
        priced(tmp_path, taps="0,99", dataset="folder:nowhere")


def test_a_budget_brings_settings_that_fit_and_none_where_the_one_asked_for_does(
    tmp_path: Path,
) -> None:
    assert priced(tmp_path, budget=5 * 10**12).better == ()
    found = priced(tmp_path, budget=5 * 10**11)
    assert found.better
    assert all(option.bill.total_bytes < 5 * 10**11 for option in found.better)
    assert found.to_json()["advice"][0]["taps"] == found.better[0].setting.taps


@pytest.mark.parametrize(("model", "dataset"), [("vivit_e", "k400"), ("vit_g", "inat2018")])
def test_of_something_large_smaller_settings_are_named_without_a_budget(
    tmp_path: Path, model: str, dataset: str
) -> None:
    found = priced(tmp_path, model=model, dataset=dataset, taps="all")
    kept = [option.bill.total_bytes for option in found.better]
    assert kept == sorted(kept, reverse=True)
    assert 1 <= len(kept) <= 6
    assert kept[0] < found.asked.total_bytes
    settings = [option.setting for option in found.better]
    assert "int8" in {setting.dtype for setting in settings}
    assert "auto" in {setting.taps for setting in settings}
    assert any(setting.tokens.startswith("pool:") for setting in settings)
    assert found.verdict.endswith("or --budget for what fits; the settings above keep less")
    assert len(found.to_json()["advice"]) == len(kept)


def test_nothing_that_was_given_up_is_named_without_a_budget(tmp_path: Path) -> None:
    found = priced(tmp_path, model="vivit_e", dataset="k400", store_dtype="int8")
    assert found.better
    assert {option.setting.dtype for option in found.better} == {"int8"}
    assert "all" not in {option.setting.taps for option in found.better}


def test_of_something_small_nothing_smaller_is_named(tmp_path: Path) -> None:
    found = priced(tmp_path, dataset="vtab/dtd", model="vit_s")
    assert (found.better, found.room) == ((), None)
    assert "the settings above" not in found.verdict


# Megabytes of a clip and terabytes of 260,000 at all layers, from a table reckoned without this
# code, which has the embedding as one tap more; then those of the last layer.
CLIPS = {
    "vivit_b": (62.6, 16.3, 1.25),
    "vivit_l": (161, 41.8, 1.67),
    "vivit_h": (346, 90, 2.7),
    "vivit_g": (473, 123, 3.0),
    "vivit_e": (837, 218, 3.8),
}


@pytest.mark.parametrize("model", CLIPS)
def test_a_video_backbone_on_k400_is_priced_as_by_hand(tmp_path: Path, model: str) -> None:
    found = priced(tmp_path, model=model, dataset="k400", taps="all")
    depth = len(found.to_json()["taps"])
    megabytes, terabytes, last = CLIPS[model]
    with_embedding = (depth + 1) / depth
    assert found.asked.sample_bytes / 1e6 * with_embedding == pytest.approx(megabytes, rel=0.02)
    assert found.asked.total_bytes / 1e12 * with_embedding == pytest.approx(terabytes, rel=0.02)
    assert found.counts.rows == 260_232
    (lone,) = [one for one in found.table if one.setting.taps == "last"]
    assert lone.bill.total_bytes / 1e12 == pytest.approx(last, rel=0.02)


def test_what_fits_of_a_video_backbone_is_coarse_in_space_and_time(tmp_path: Path) -> None:
    found = priced(tmp_path, budget=10**12, model="vivit_e", dataset="k400", taps="all")
    assert found.better
    assert all(option.bill.total_bytes < 10**12 for option in found.better)
    assert {"pool:2x4x4", "pool:2x2x2"} & {option.setting.tokens for option in found.better}
    assert "the settings above do" in found.verdict


def test_frames_and_test_views_of_clips_count(tmp_path: Path) -> None:
    one = priced(tmp_path, dataset="ucf101", frames=8)
    many = priced(tmp_path, dataset="ucf101", frames=8, clips=4, crops=3, views=2)
    assert one.asked.flops == 8 * priced(tmp_path).asked.flops
    assert one.counts.rows == 9_537 + 3_783
    assert many.counts.rows == 2 * 9_537 + 12 * 3_783
    assert (many.to_json()["frames"], many.to_json()["test_views"]) == (8, 12)
