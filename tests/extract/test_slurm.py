"""Claims of examples/slurm: a real Slurm runs the templates to the same store as one process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from losa.extract.run import extract
from losa.store import layout
from tests.extract.picture_folder import picture_folder, tiny_config
from tests.extract.processes import LOSA, ROOT, TINY, committed
from tests.extract.slurm_cluster import Cluster, missing_program, slurm_cluster
from tests.store.build import tree

TEMPLATES = sorted((ROOT / "examples/slurm").glob("*.sbatch"))
needs_slurm = pytest.mark.skipif(
    missing_program() is not None, reason=f"{missing_program()} is not installed (slurm-wlm)"
)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_is_sound_bash(template: Path) -> None:
    subprocess.run(["bash", "-n", str(template)], check=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as running:
        # What the jobs inherit; all else is the template's.
        running.environment |= {"LOSA": " ".join(LOSA), "PYTHON": sys.executable, "PROCESSES": "2"}
        running.environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``data`` lies, and ``one.zarr``, which one process has written."""
    root = tmp_path_factory.mktemp("data")
    picture_folder(root / "data", {"train": 60, "val": 4})
    extract(tiny_config(root / "data", root / "one.zarr", calibration_rows=512))
    return root


def submit(cluster: Cluster, folder: Path, store: Path, *options: str) -> str:
    """Submit a template with options of sbatch; returns the job's number."""
    logs = f"--output={cluster.folder}/{store.stem}-%a.log"
    where = ("--parsable", f"--chdir={folder}", logs, *options)
    return cluster.ask("sbatch", *where, *TINY, "--store", store.name).strip()


@needs_slurm
@pytest.mark.slow
def test_an_array_of_two_tasks_writes_the_store_of_one_process(
    cluster: Cluster, folder: Path
) -> None:
    store = folder / "array.zarr"
    job = submit(cluster, folder, store, "--array=0-1", str(TEMPLATES[0]))
    assert cluster.finish(job, 180) == ["COMPLETED", "COMPLETED"], cluster.logs()
    assert tree(store) == tree(folder / "one.zarr")
    logs = [path.read_text() for path in sorted(cluster.folder.glob("array-*.log"))]
    told = [[line for line in log.splitlines() if line.startswith('{"')] for log in logs]
    assert [len(lines) for lines in told] == [1, 0]
    assert json.loads(told[0][0])["store"] == str(store)


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pre_empted_array_is_queued_again_and_goes_on(cluster: Cluster, folder: Path) -> None:
    store = folder / "preempted.zarr"
    job = submit(cluster, folder, store, "--array=0-1", str(TEMPLATES[0]))
    cluster.wait_until(lambda: committed(store) > 1, 120)
    cluster.ask("scancel", "--signal=USR1", job)
    cluster.wait_until(lambda: "told to end (SIGUSR1)" in cluster.logs(), 60)
    assert not (store / layout.SEALED_OBJECT).exists()
    cluster.wait_until(lambda: "Restarts=1" in cluster.ask("scontrol", "show", "job", job), 30)
    # Slurm lets what was queued again wait for two minutes, so that its end is over by then.
    assert cluster.finish(job, 500) == ["COMPLETED", "COMPLETED"], cluster.logs()
    assert tree(store) == tree(folder / "one.zarr")


@needs_slurm
@pytest.mark.slow
def test_torchrun_on_a_node_writes_the_store_of_one_process(cluster: Cluster, folder: Path) -> None:
    store = folder / "nodes.zarr"
    job = submit(cluster, folder, store, "--nodes=1", str(TEMPLATES[1]))
    assert cluster.finish(job, 240) == ["COMPLETED"], cluster.logs()
    assert tree(store) == tree(folder / "one.zarr")
