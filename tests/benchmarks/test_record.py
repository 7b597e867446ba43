from __future__ import annotations

from benchmarks import record
from tests.benchmarks.conftest import Published


def test_a_result_carries_its_command_and_versions(published: Published) -> None:
    record.publish("toy", ["--rows", "1"], {"answer": 42})
    document = published("toy")
    assert document["command"] == "python -m benchmarks toy --rows 1"
    assert document["answer"] == 42
    assert {"numpy", "torch", "zarr", "h5py"} <= set(document["versions"])
