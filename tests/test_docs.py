"""What the documents say is there is there, and their examples run."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer.main

import losa
from losa import console
from losa.cli import app
from losa.errors import LosaError
from losa.interrupt import PREEMPTED
from losa.store.order import row_places
from tests.house_rules import ROOT, dead_references, python_files

EXAMPLE_SECONDS = 20
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "demo/**/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
API = (ROOT / "docs/api.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_blocks(text))
    relative = [link for link in targets if not re.match(r"[a-z]+:|#", link)]
    return [link for link in relative if not (folder / link.partition("#")[0]).exists()]


def without_blocks(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[str]:
    """The Python code blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def undocumented(names: Iterator[str] | list[str], text: str, form: str) -> list[str]:
    """Names that a page does not mention in the form given."""
    return [name for name in names if not re.search(form.format(re.escape(name)), text)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert dead_links(page.read_text(encoding="utf-8"), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_parses(page: Path) -> None:
    for block in python_blocks(page.read_text(encoding="utf-8")):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_code_and_test_reference_exists(page: Path) -> None:
    assert dead_references(page.read_text(encoding="utf-8")) == []


def test_every_public_name_is_documented() -> None:
    assert undocumented(losa.__all__, API, r"`losa\.{}\b") == []
    for name in losa.__all__:
        assert getattr(losa, name) is not None


def test_every_verb_is_documented() -> None:
    verbs = [command.name or "" for command in typer.main.get_command(app).commands.values()]  # type: ignore[attr-defined]  # a group
    assert "extract" in verbs
    assert undocumented(verbs, API, r"(?m)^### losa {}$") == []


def test_every_flag_is_documented_under_its_verb() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
    for verb, command in commands.items():
        section = _section(verb)
        if verb == "plan":
            section += _section("extract")  # whose flags it takes
        flags = [flag for item in command.params for flag in item.opts if flag.startswith("--")]
        shared = {"--help", "--config", "--device", "--amp-dtype"}
        wanted = [flag for flag in flags if flag not in shared]
        assert undocumented(wanted, section, r"{}\b") == [], verb


def _section(verb: str) -> str:
    return API.partition(f"\n### losa {verb}\n")[2].partition("\n### ")[0]


def test_every_exit_code_is_documented() -> None:
    codes = {0, PREEMPTED, *(code for _, code in console._STOPS.values())}
    codes |= {LosaError.exit_code} | {kind.exit_code for kind in LosaError.__subclasses__()}
    assert undocumented([str(code) for code in sorted(codes)], API, r"(?m)^\| {} \|") == []
    listed = {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", API)}
    assert listed == codes


def test_every_module_has_a_line_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [name_of(path) for path in python_files("losa") if "__" not in path.name]
    assert undocumented(modules, text, "`{}`") == []


def test_the_format_page_gives_the_row_order_of_the_code() -> None:
    page = (ROOT / "docs/store-format.md").read_text(encoding="utf-8")
    (block,) = python_blocks(page)
    names: dict[str, object] = {}
    exec(compile(block, "store-format.md", "exec"), names)
    recipe = names["row_places"]
    assert callable(recipe)
    for wanted in ((1, 1, 0, "val"), (257, 1, 3, "train"), (64, 5, 2**63, "été")):
        np.testing.assert_array_equal(recipe(*wanted), row_places(*wanted))


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_an_example_is_short_and_runs_offline(path: Path, tmp_path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    # Processor time of one thread: what a reader waits for must not depend on who else computes.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOSA_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = "1"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * EXAMPLE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < EXAMPLE_SECONDS
    assert list(tmp_path.iterdir()) == []


# Each check fails on what it is there for.


def test_the_link_check_sees_dead_links_and_leaves_code_and_the_web_alone() -> None:
    text = "[a](STYLE.md) [b](gone.md) [c](https://x.org) [d](#here) [e](STYLE.md#x)"
    assert dead_links(text, ROOT) == ["gone.md"]
    assert dead_links("```\n[a](gone.md)\n```\n", ROOT) == []


def test_the_mention_check_sees_what_is_missing() -> None:
    assert undocumented(["load", "gone"], "`losa.load(x)` `losa.gone_by`", r"`losa\.{}\b") == [
        "gone"
    ]
    assert undocumented(["7", "75"], "| 75 | x |", r"(?m)^\| {} \|") == ["7"]


def test_the_block_check_sees_python_blocks_only() -> None:
    text = "```python\nx = (\n```\n```sh\nls (\n```\n"
    assert python_blocks(text) == ["x = (\n"]
    with pytest.raises(SyntaxError):
        ast.parse(python_blocks(text)[0])
