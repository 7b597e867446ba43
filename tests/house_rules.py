"""The rules of the house as functions from source text to a list of what breaks them.

``tests/test_house.py`` holds the repository against them, and each of them against a bad snippet.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
MAX_FILE_LINES: Final = 400
MAX_BODY_LINES: Final = 40
MAX_ARGUMENTS: Final = 6
_SHAPED: Final = re.compile(r"(Shaped|Bool|Num|Inexact|Real|Complex|Integer|B?Float|U?Int)\d*")
_PICKLERS: Final = frozenset(["pickle", "cPickle", "dill", "shelve", "marshal", "joblib"])
_UNSAFE_CALLS: Final = frozenset(
    ["eval", "exec", "torch.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"]
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: str) -> list[Path]:
    """Every Python file below some folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def foreign_axes(source: str, axes: Mapping[str, str]) -> list[str]:
    """Names inside jaxtyping shape strings that are no letter of the table."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple)):
            continue
        shape = node.slice.elts[-1]
        if not _SHAPED.fullmatch(_dotted(node.value).rpartition(".")[2]):
            continue
        if isinstance(shape, ast.Constant) and isinstance(shape.value, str):
            found += [
                f"line {node.lineno}: {name} in {shape.value!r}"
                for name in shape.value.split()
                if not (name in axes or name.isdecimal() or name == "..." or name[0] == "*")
            ]
    return found


def oversized(source: str, *, many_arguments: bool = False) -> list[str]:
    """A file, function bodies and signatures beyond the limits; a docstring does not count."""
    lines = len(source.splitlines())
    found = [f"{lines} lines, at most {MAX_FILE_LINES}"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, Function):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if length > MAX_BODY_LINES:
            found.append(f"{node.name} has {length} lines, at most {MAX_BODY_LINES}")
        count = len(_arguments(node))
        if count > MAX_ARGUMENTS and not many_arguments:
            found.append(f"{node.name} takes {count} arguments, at most {MAX_ARGUMENTS}")
    return found


def unsafe_loads(source: str) -> list[str]:
    """Ways to run a stranger's file: pickles, ``torch.load``, ``eval``, YAML's unsafe loaders."""
    tree = ast.parse(source)
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    safe |= {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(_dotted(base) in safe for base in node.bases)
    }
    found = []
    for node in ast.walk(tree):
        found += [
            f"import of {name}"
            for name in _imported(node)
            if name.partition(".")[0] in _PICKLERS or name in _UNSAFE_CALLS
        ]
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            loader = {key.arg: _dotted(key.value) for key in node.keywords}.get("Loader", "")
            if name in _UNSAFE_CALLS or (name == "yaml.load" and loader not in safe):
                found.append(f"line {node.lineno}: {name}")
            if any(key.arg == "allow_pickle" and not _is_false(key.value) for key in node.keywords):
                found.append(f"line {node.lineno}: allow_pickle")
    return found


def avoided_words(source: str, avoided: Mapping[str, str], exempt: Mapping[str, str]) -> list[str]:
    """Public functions and classes named by a word for which the glossary has another."""
    found = []
    for name in _public_names(ast.parse(source)):
        segments = f"_{'_'.join(re.findall(r'[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])', name)).lower()}_"
        found += [
            f"{name}: say {avoided[word]!r}, not {word!r}"
            for word in avoided
            if f"_{word.replace(' ', '_')}_" in segments and name not in exempt
        ]
    return found


def glossary_words(text: str) -> dict[str, str]:
    """Word to avoid -> the word to use, from the glossary's tables."""
    words = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 3 and cells[2] not in ("instead of", "") and not cells[2].startswith("-"):
            plain = re.sub(r"\(.*?\)|`", "", cells[2])
            words.update({word.strip(): cells[0] for word in plain.split(",") if word.strip()})
    return words


def missing_test(module: Path, root: Path = ROOT) -> str | None:
    """The test file that a module of ``losa/`` should have and has not."""
    below = module.relative_to(root / "losa")
    wanted = root / "tests" / below.parent / f"test_{below.name}"
    return None if wanted.exists() else wanted.relative_to(root).as_posix()


def dead_references(text: str, root: Path = ROOT) -> list[str]:
    """References ``path.py:Name`` to code or tests, in Markdown, that lead nowhere."""
    found = []
    for path, name in re.findall(r"`((?:losa|tests|benchmarks)/[\w/]+\.py)(?::([\w.]+))?", text):
        file = root / path
        if not file.exists():
            found.append(path)
        elif name and name not in set(_defined(ast.parse(file.read_text(encoding="utf-8")))):
            found.append(f"{path}:{name}")
    return found


def _defined(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Dotted names that a module or a class defines."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _defined(node, f"{prefix}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        yield from (prefix + item.id for item in targets if isinstance(item, ast.Name))


def _public_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from _public_names(node)


def _arguments(node: Function) -> list[ast.arg]:
    parts = node.args
    named = [*parts.posonlyargs, *parts.args, *parts.kwonlyargs]
    return [item for item in named if item.arg not in ("self", "cls")]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [item.name for item in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{item.name}" for item in node.names)]
    return []


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
