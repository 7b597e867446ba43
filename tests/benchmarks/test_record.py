from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import record
from tests.benchmarks.conftest import Published


def test_a_result_carries_its_command_and_versions(published: Published) -> None:
    record.publish("toy", ["--rows", "1"], {"answer": 42})
    document = published("toy")
    assert document["command"] == "python -m benchmarks toy --rows 1"
    assert document["answer"] == 42
    assert {"numpy", "torch", "timm", "zarr", "h5py"} <= set(document["versions"])


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_commit_is_marked_by_a_module_that_is_not_in_it_and_not_by_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    for name in ("record.py", "results/old.json"):
        (folder / name).touch()
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "all")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "__file__", str(folder / "record.py"))
    # Past the cache, which is for the life of a benchmark.
    commit = record.commit.__wrapped__
    for name in ("results/old.json", "results/new.json"):
        (folder / name).write_text("{}")
    head = commit()
    assert len(head) == 12
    (folder / "new.py").touch()
    assert commit() == f"{head}+changes"
