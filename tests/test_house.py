"""The repository keeps its own rules, and each rule's check can fail (STYLE.md)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from losa.config import AdaptConfig, Config, ExtractConfig, checked, load_yaml
from losa.features import AXES
from losa.sweep.strategy import parse_strategy
from tests.house_rules import (
    ROOT,
    avoided_words,
    dead_references,
    foreign_axes,
    glossary_words,
    missing_test,
    oversized,
    python_files,
    unsafe_loads,
)

KINDS: dict[str, type[Config]] = {"extract": ExtractConfig, "adapt": AdaptConfig}
WITHOUT_TEST = {
    "__init__.py": "names only; what they stand for is tested where it is defined",
    "__main__.py": "two lines that every test of the command line runs through",
}
KEPT_NAMES = {
    "boot_id": "the kernel's own name for it",
    "metadata_documents": "zarr's own word for its zarr.json files",
    "metadata": "safetensors' own word for the strings in a file's header",
    "store_id": "the contract's name for a store's identity, on disk and in reports",
}
MODULES = python_files("losa")
EVERYTHING = python_files("losa", "tests", "benchmarks", "demo", "examples")
GLOSSARY = glossary_words((ROOT / "docs/glossary.md").read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_axis_letter_is_in_the_table(path: Path) -> None:
    assert foreign_axes(path.read_text(encoding="utf-8"), AXES) == []


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_every_file_function_and_signature_has_a_humane_size(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    # The command line has one argument a flag; a test one a fixture.
    many = name_of(path) in ("losa/cli.py", "losa/verbs.py") or path.is_relative_to(ROOT / "tests")
    assert oversized(source, many_arguments=many) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_a_strangers_file(path: Path) -> None:
    assert unsafe_loads(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_use_the_words_of_the_glossary(path: Path) -> None:
    assert avoided_words(path.read_text(encoding="utf-8"), GLOSSARY, KEPT_NAMES) == []


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name not in WITHOUT_TEST], ids=name_of
)
def test_every_module_has_its_test_file(path: Path) -> None:
    assert missing_test(path) is None


def test_the_command_line_starts_without_torch_zarr_and_timm() -> None:
    assert heavy_modules("import losa.cli") == set()


def test_import_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*/*.yaml")), ids=name_of)
def test_every_configuration_file_is_valid(path: Path) -> None:
    if path.parent.name == "sweep":
        parse_strategy(load_yaml(path), path)
    else:
        checked(KINDS[path.parent.name], {}, path)
    head = path.read_text(encoding="utf-8").splitlines()[0]
    assert head.startswith(f"# losa {path.parent.name}")
    assert f"--config {name_of(path)}" in head


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_default_file_lists_every_knob_with_its_default(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOSA_DATA", raising=False)
    path = ROOT / "configs" / name / "default.yaml"
    needed = {"model": "dinov2_s", "dataset": "folder:photos"} if name == "extract" else {}
    found = checked(KINDS[name], {}, path)
    assert found == KINDS[name].model_validate(needed)
    assert found.model_fields_set == set(KINDS[name].model_fields)


def test_every_code_reference_of_the_paper_page_exists() -> None:
    text = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    assert "losa/adapt/adaptor.py:LoSA" in text
    assert dead_references(text) == []


# Each check fails on what it is there for.


@pytest.mark.parametrize(
    ("annotation", "foreign"),
    [
        ('Float[Tensor, "b l d"]', 0),
        ('UInt8[np.ndarray, "b h w 3"]', 0),
        ('Shaped[np.ndarray, "... *rest d"]', 0),
        ('Float[Tensor, "batch l d"]', 1),
        ('jaxtyping.Int64[np.ndarray, "b seq chan"]', 2),
        ('Mapping[str, "batch"]', 0),
    ],
)
def test_the_axis_check_sees_foreign_letters(annotation: str, foreign: int) -> None:
    assert len(foreign_axes(f"def f(x: {annotation}) -> None: ...", AXES)) == foreign


def test_the_start_check_sees_a_heavy_import() -> None:
    assert heavy_modules("import losa.cli, zarr") == {"zarr"}


def test_the_size_check_sees_long_files_bodies_and_signatures() -> None:
    body = "\n    x = 1"
    assert oversized("x = 1\n" * 400) == []
    assert oversized("x = 1\n" * 401) == ["401 lines, at most 400"]
    assert oversized('def f():\n    """A docstring\n\n    of four\n    lines."""' + body * 40) == []
    assert oversized("def f():" + body * 41) == ["f has 41 lines, at most 40"]
    six = "class A:\n    def f(self, a, b, c, *, d, e, g): ..."
    assert oversized(six) == []
    assert oversized("def f(a, b, c, *, d, e, g, h): ...") == ["f takes 7 arguments, at most 6"]
    assert oversized("def f(a, b, c, *, d, e, g, h): ...", many_arguments=True) == []


@pytest.mark.parametrize(
    "snippet",
    [
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "torch.load(path)",
        "x = eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_safety_check_sees_unsafe_loading(snippet: str) -> None:
    assert unsafe_loads(snippet)


@pytest.mark.parametrize(
    "snippet",
    [
        "model.eval()",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "class Ours(yaml.SafeLoader): ...\nyaml.load(text, Loader=Ours)",
        "np.load(path, allow_pickle=False)",
    ],
)
def test_the_safety_check_passes_safe_loading(snippet: str) -> None:
    assert unsafe_loads(snippet) == []


def test_the_word_check_sees_whole_words_of_public_names_only() -> None:
    avoided = {"encoder": "backbone", "hidden state": "feature", "id": "row"}
    bad = "def build_encoder(): ...\nclass HiddenState: ...\nclass A:\n    def row_id(self): ..."
    assert len(avoided_words(bad, avoided, {})) == 3
    good = "def _encoder(): ...\ndef encode(): ...\ndef identity(): ...\ndef hidden(): ..."
    assert avoided_words(good, avoided, {}) == []
    assert avoided_words("def boot_id(): ...", avoided, KEPT_NAMES) == []


def test_every_kept_name_is_still_there_and_still_needs_keeping() -> None:
    sources = [path.read_text(encoding="utf-8") for path in MODULES]
    found = [line for source in sources for line in avoided_words(source, GLOSSARY, {})]
    assert {line.partition(":")[0] for line in found} == set(KEPT_NAMES)


def test_the_glossary_gives_words_to_avoid() -> None:
    table = "|word|means|instead of|\n|---|---|---|\n|backbone|a net|encoder, base model|\n|x|y||"
    assert glossary_words(table) == {"encoder": "backbone", "base model": "backbone"}
    assert GLOSSARY["encoder"] == "backbone"
    assert GLOSSARY["adapter"] == "adaptor"


def test_the_mirror_check_sees_a_module_without_tests(tmp_path: Path) -> None:
    module = tmp_path / "losa" / "adapt" / "new.py"
    assert missing_test(module, tmp_path) == "tests/adapt/test_new.py"


def test_the_reference_check_sees_dead_references() -> None:
    text = "`losa/features.py:AXES` `losa/features.py:TokenGrid.num_tokens` `losa/errors.py`"
    assert dead_references(text) == []
    text = "`losa/gone.py` `losa/gone.py:X` `losa/features.py:Gone` `losa/features.py:AXES.x`"
    assert len(dead_references(text)) == 4


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("utils.py", "x = 1"),
        ("store/extra.py", "import torch"),
        ("adapt/extra.py", "import losa.extract"),
        ("adapt/mixer.py", "import losa.store"),
        ("live/extra.py", "import zarr"),
    ],
)
def test_the_contracts_catch_a_stray_module_and_a_forbidden_import(
    tmp_path: Path, module: str, line: str
) -> None:
    shutil.copytree(ROOT / "losa", tmp_path / "losa", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "losa" / module
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout


def test_the_tests_of_the_store_load_where_there_is_neither_torch_nor_typer() -> None:
    names = [f"tests.store.{path.stem}" for path in (ROOT / "tests/store").glob("test_*.py")]
    lacking = "import sys; sys.modules.update(torch=None, typer=None, timm=None, fsspec=None)"
    code = f"{lacking}; from importlib import import_module; [*map(import_module, {names!r})]"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-500:]


def heavy_modules(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*({{'torch', 'zarr', 'timm'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "lint-imports"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [command, "--no-cache"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
