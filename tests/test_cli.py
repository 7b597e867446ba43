"""Claims of losa.cli: every verb end to end, and every mistake by its exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from losa import cli, console
from losa.config import AdaptConfig
from losa.store import layout
from tests.command import Losa
from tests.live.trained import Trained, train_small

DATA_FLAGS = ("--img-size", "32", "--taps", "2,11", "-b", "4", "-j", "0", "--shard-rows", "4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_small(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def store(made: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.store, tmp_path / "s.zarr"))


def extract_flags(made: Trained, store: Path) -> tuple[object, ...]:
    data = f"folder:{made.pictures}"
    model = ("--model", "vit_tiny_patch16_224", "--weights", "random")
    return ("extract", *model, "--dataset", data, "--store", store, *DATA_FLAGS)


def test_every_verb_works_from_pictures_to_predictions(
    losa: Losa, made: Trained, tmp_path: Path
) -> None:
    store, run = tmp_path / "f.zarr", tmp_path / "run"
    extracted = losa(*extract_flags(made, store))
    assert extracted.code == 0
    assert extracted.value["splits"]["train"] == {"ok": 24, "rows": 24, "shards": 6}
    assert losa("verify", store).value["sound"] is True
    assert losa("inspect", store).value["store_id"] == extracted.value["store_id"]
    trained = losa("adapt", "--store", store, "--out", run, "--epochs", 2, "--rank", 2)
    assert trained.code == 0
    assert set(trained.value["metrics"]) == {"val", "test"}
    assert json.loads((run / "report.json").read_text()) == trained.value
    measured = losa("evaluate", "--run", run, "--store", store, "--split", "test")
    assert measured.value["top1"] == trained.value["metrics"]["test"]["top1"]
    live = losa(
        *("evaluate", "--run", run, "--dataset", f"folder:{made.pictures}"),
        *("--weights", "random", "--split", "test"),
    )
    assert live.value["top1"] == measured.value["top1"]
    picture = made.pictures / "test/red/000.png"
    guess = losa("predict", "--run", run, "--weights", "random", "--store", store, picture)
    assert guess.value["predictions"][0]["top"][0]["class"] in ("blue", "green", "red")
    assert guess.value["cache_check"]["compared"] == 1
    assert "probability" in guess.err
    assert (
        "probability"
        not in losa("predict", "--run", run, "--weights", "random", "--json", picture).err
    )


@pytest.mark.parametrize("verb", ["models", "datasets"])
def test_lists_are_a_table_for_people_and_json_for_machines(losa: Losa, verb: str) -> None:
    result = losa(verb)
    assert result.code == 0
    assert len(result.value) >= 4
    assert len(result.err.splitlines()) == len(result.value) + 1


def test_doctor_looks_at_a_place(losa: Losa, tmp_path: Path) -> None:
    assert losa("doctor", "--path", tmp_path).code == 0


def test_plan_prices_an_extraction_without_data_weights_or_torch(tmp_path: Path) -> None:
    words = ["plan", "--model", "vit_g", "--dataset", "inat2018", "--data-dir", str(tmp_path)]
    code = (
        f"import sys; from losa.cli import main; sys.argv = ['losa', *{words!r}]\n"
        "try: main()\n"
        "finally: print({'torch', 'timm', 'zarr'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    told = json.loads(done.stdout)
    assert told["bytes"] == 461_939 * 7_237_120
    assert told["policies"][0]["bytes"] / 1e12 == pytest.approx(13.7, rel=0.05)
    assert "asked: auto (10)" in done.stderr
    assert done.stderr.splitlines()[-1] == "set()"


def test_plan_names_what_fits_a_budget(losa: Losa, tmp_path: Path) -> None:
    words = ("plan", "--model", "vit_g", "--dataset", "inat2018", "--data-dir", tmp_path)
    result = losa(*words, "--budget", "500GB")
    assert result.value["room"] == 5 * 10**11
    assert all(option["bytes"] < 5 * 10**11 for option in result.value["advice"])
    assert "fit 500 GB, those that keep most first:" in result.err
    assert losa(*words, "--budget", "lots").code == 2


def test_version_is_printed(losa: Losa) -> None:
    assert losa("--version").value == {"losa": "0.1.0"}


def test_a_configuration_file_is_read_and_flags_win(
    losa: Losa, made: Trained, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("epochs: 1\nrank: 3\nadaptor: linear\n")
    result = losa(
        *("adapt", "--store", made.store, "--out", tmp_path / "r"),
        *("--config", tmp_path / "c.yaml", "--rank", 5),
    )
    config = result.value["config"]
    assert (config["epochs"], config["rank"], config["adaptor"]) == (1, 5, "linear")


MISTAKES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no such command": (("extrct",), 2, "No such command 'extrct'"),
    "no such flag": (("adapt", "--rnk", "8"), 2, "--rnk"),
    "needed flags": (("extract",), 2, "--dataset is needed, --model is needed"),
    "rank 0": (("adapt", "--rank", "0"), 2, "--rank should be greater than or equal to 1"),
    "batch size": (("extract", "--model", "m", "--dataset", "d", "-b", "0"), 2, "--batch-size"),
    "store dtype": (
        ("extract", "--model", "m", "--dataset", "d", "--store-dtype", "int3"), 2, "--store-dtype",
    ),
    "model": (("extract", "--model", "vitg", "--dataset", "{pictures}"), 2, "'vitg' is not"),
    "taps": (
        ("extract", "--model", "vit_s", "--weights", "random", "--dataset", "{pictures}",
         "--taps", "0,99"), 2, "--taps: '0,99' does not name taps of 0..11",
    ),
    "data set": (("extract", "--model", "vit_s", "--dataset", "folder:/none"), 3, "/none"),
    "pickled weights": (
        ("extract", "--model", "vit_s", "--dataset", "{pictures}", "--weights", "w.pth"), 3,
        "w.pth",
    ),
    "config key": (("adapt", "--config", "{bad_config}"), 3, "--rnak is not known (did you"),
    "store": (("adapt", "--store", "/none.zarr"), 4, "/none.zarr: does not exist"),
    "foreign": (("inspect", "{pictures}"), 4, "is not a losa store"),
    "run": (("evaluate", "--run", "/none"), 4, "/none"),
    "split": (("evaluate", "--run", "{run}", "--split", "tset"), 4, "no split 'tset'"),
    "adaptor": (("adapt", "--store", "{store}", "--adaptor", "lora"), 2, "--adaptor"),
    "device": (("adapt", "--store", "{store}", "--device", "cuda:77"), 6, "--device: cuda:77"),
    "two sources": (("evaluate", "--run", "r", "--store", "s", "--dataset", "d"), 2, "--dataset"),
    "weights unused": (("evaluate", "--run", "r", "--weights", "w"), 2, "--weights: needs"),
    "data unused": (("evaluate", "--run", "r", "--data-dir", "d"), 2, "--data-dir: needs"),
    "workers unused": (("evaluate", "--run", "r", "-j", "1"), 2, "--num-workers: needs"),
    "empty path": (("inspect", ""), 2, "argument: is empty"),
    "empty flag": (("adapt", "--store", "s", "--out", ""), 2, "--out: is empty"),
    "empty =": (("adapt", "--out="), 2, "--out: is empty"),
    "place": (("evaluate", "--run", "{run}", "--predictions", "no/p.csv"), 2, "--predictions: the"),
    "workers": (("predict", "--run", "r", "-j", "some", "a.png"), 2, "--num-workers"),
    "picture": (("predict", "--run", "{run}", "none.png"), 3, "none.png: does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_costs_one_line_and_the_documented_exit_code(
    losa: Losa, made: Trained, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("rnak: 3\n")
    places = {"pictures": made.pictures, "store": made.store, "run": made.run}
    arguments, code, text = MISTAKES[name]
    result = losa(*(item.format(**places, bad_config=tmp_path / "c.yaml") for item in arguments))
    assert (result.code, result.out) == (code, "")
    lines = [line for line in result.err.splitlines() if line.startswith("losa: error: ")]
    assert len(lines) == 1
    assert text in lines[0]
    assert result.err.splitlines()[-1] == lines[0]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 16
    path.write_bytes(data)


def to_format_2(path: Path) -> None:
    document = json.loads(path.read_text())
    document["attributes"]["losa"]["format"]["major"] = 2
    path.write_text(json.dumps(document))
    # Were it the root alone that says so, it would be damaged, and the rest of the store not newer.
    for other in path.parent.glob(".losa/**/*.json"):
        other.write_bytes(other.read_bytes().replace(b'"major":1', b'"major":2'))


SHARD = "train/tokens/tap11/c.2.0.0"
DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing shard": (SHARD, Path.unlink, "tap11/c.2.0.0: is missing"),
    "truncated shard": (SHARD, truncate, "tap11/c.2.0.0: is "),
    "flipped bit": (SHARD, flip, "tap11/c.2.0.0: row 8 does not match its checksum"),
    "unsealed": (layout.SEALED_OBJECT, Path.unlink, "(12 of 12 shards are committed)"),
    "format 2": (layout.ROOT_OBJECT, to_format_2, "is losa store format 2"),
}


@pytest.mark.parametrize("verb", ["adapt", "verify"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store_is_exit_4_and_names_the_file(
    losa: Losa, store: Path, tmp_path: Path, name: str, verb: str
) -> None:
    file, damage, text = DAMAGE[name]
    damage(store / file)
    flags = ("--store", store, "--out", tmp_path / "run") if verb == "adapt" else (store,)
    result = losa(verb, *flags)
    assert result.code == 4
    assert text in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--img-size", "48"), "preprocessing.img_size: [48, 48] / [32, 32]"),
        (("--model", "vit_small_patch16_224"), "backbone.model"),
        (("--store-dtype", "float32"), "features.dtype: float32 / float16"),
    ],
)
def test_another_plan_in_the_same_store_is_exit_5_and_names_the_field(
    losa: Losa, made: Trained, store: Path, flags: tuple[str, ...], field: str
) -> None:
    result = losa(*extract_flags(made, store), *flags)
    assert result.code == 5
    assert field in result.err.splitlines()[-1]


def test_wrong_weights_are_exit_5_and_name_the_field(
    losa: Losa, made: Trained, tmp_path: Path
) -> None:
    import safetensors.torch
    import timm

    other = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    safetensors.torch.save_file(other.state_dict(), tmp_path / "other.safetensors")
    picture = made.pictures / "test/red/000.png"
    weights = ("--weights", tmp_path / "other.safetensors")
    result = losa("predict", "--run", made.run, *weights, picture)
    assert result.code == 5
    assert "weights: " in result.err.splitlines()[-1]


def test_an_unreadable_picture_is_exit_8_after_the_others_were_classified(
    losa: Losa, made: Trained, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    good = made.pictures / "test/red/000.png"
    result = losa("predict", "--run", made.run, "--weights", "random", tmp_path / "bad.png", good)
    assert result.code == 8
    assert len(result.value["predictions"]) == 2


def test_a_cache_check_of_other_pixels_prints_its_result_and_is_exit_5(
    losa: Losa, made: Trained, tmp_path: Path
) -> None:
    picture = tmp_path / "test/red/000.png"
    picture.parent.mkdir(parents=True)
    shutil.copy(made.pictures / "test/blue/000.png", picture)
    flags = ("predict", "--run", made.run, "--weights", "random", "--store", made.store, "--json")
    result = losa(*flags, picture)
    assert result.code == 5
    assert result.value["cache_check"]["compared"] == 1
    figure = result.value["cache_check"]["max_abs_difference"]
    assert f"by {figure:.3g}" in result.err.splitlines()[-1]
    other = shutil.copy(picture, tmp_path / "other.png")
    result = losa(*flags, other)
    assert result.code == 0
    assert result.value["cache_check"]["same_classes"] is None
    assert "nothing was compared" in result.err


def test_help_of_every_verb_has_an_example_or_needs_none(losa: Losa) -> None:
    for verb in ("extract", "adapt", "evaluate", "predict", "inspect", "verify"):
        result = losa(verb, "--help")
        assert result.code == 0
        assert f"losa {verb}" in " ".join(result.out.split())


def test_defaults_in_the_help_are_the_configurations_own(losa: Losa) -> None:
    # Rich folds the text into columns of whatever terminal there is.
    text = "".join(losa("adapt", "--help").out.replace("│", " ").split())
    for value in (AdaptConfig().rank, AdaptConfig().lr, AdaptConfig().store):
        assert f"[default:({value})]" in text


def test_a_closed_pipe_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "losa", "models"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert "rror" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_result_that_does_not_fit_is_exit_6_and_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "losa", "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 6
    last = done.stderr.splitlines()[-1]
    assert last.startswith("losa: error: stdout: no space left on device; ")


def test_the_console_is_the_only_printer() -> None:
    for path in Path(cli.__file__).parent.rglob("*.py"):
        if path.name != Path(console.__file__).name:
            assert "print(" not in path.read_text().replace("_print(", "")
