from __future__ import annotations

from benchmarks import opening
from tests.benchmarks.conftest import Published


def test_opening_and_resuming_are_timed_in_fresh_processes(published: Published) -> None:
    assert opening.main(["--shards", "6", "--taps", "2", "--rounds", "1"]) == 0
    document = published("opening")
    found = document["milliseconds"]
    assert set(opening.TARGETS) < set(found)
    wanted = {name: found[name]["best"] <= limit for name, limit in opening.TARGETS.items()}
    assert document["hits"] == wanted
    parts = [value["best"] for name, value in found.items() if name.startswith("of it")]
    assert 0 < sum(parts) <= found["store"]["best"] + 0.01
