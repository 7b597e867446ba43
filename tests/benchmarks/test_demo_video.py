"""Claims of ``benchmarks/demo_video.py``, with a tiny random backbone and few clips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import demo.__main__ as shop
from benchmarks import demo_video
from benchmarks import motion as rendering
from demo.command import CommandFailedError
from losa import cli
from tests.benchmarks.conftest import Published
from tests.benchmarks.test_motion import blobs

pytest.importorskip("matplotlib", reason="the extra report is not installed")
COUNTS = {"train": 24, "test": 12}
TRIALS = (
    ("losa, space and time", "all tokens", ()),
    ("linear", "pool:1x2x2", ("--adaptor", "linear")),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the commands in this process, on small things; the verbs that were asked for."""
    verbs: list[str] = []

    def losa(*words: str) -> dict[str, Any]:
        here = ("-j", "0", "-b", "4") if words[0] == "extract" else ()
        given = ["vit_tiny_patch16_224" if word == "dinov2_s" else word for word in words]
        monkeypatch.setattr(sys, "argv", ["losa", *given, *here])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        if ended.value.code != 0:
            assert isinstance(ended.value.code, int)
            raise CommandFailedError(ended.value.code)
        verbs.append(words[0])
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    for module in (shop, demo_video):
        monkeypatch.setattr(module, "losa", losa)
    monkeypatch.setattr(demo_video, "prepare", lambda _: "random")
    monkeypatch.setattr(demo_video, "COUNTS", COUNTS)
    monkeypatch.setattr(demo_video, "motion", lambda cache: rendering.motion(cache, COUNTS, blobs))
    monkeypatch.setattr(demo_video, "TRIALS", TRIALS)
    stores = {name: demo_video.STORES[name] for name in ("all tokens", "pool:1x2x2")}
    monkeypatch.setattr(demo_video, "STORES", stores)
    return verbs


@pytest.mark.slow
def test_every_row_is_trained_and_tested_and_clips_are_classified_from_their_files(
    asked: list[str], published: Published, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    places = ["--out", str(out), "--cache", str(tmp_path / "cache"), "--record"]
    small = ["--img-size", "32", "--taps", "0,1", "--epochs", "1"]
    assert demo_video.main([*places, *small]) == 0
    assert asked == ["extract"] * 2 + ["adapt", "evaluate"] * 2 + ["predict"]
    told = published("motion")
    assert [(row["adaptor"], row["store"]) for row in told["results"]] == [
        trial[:2] for trial in TRIALS
    ]
    whole, pooled = (told["results"][place]["clip_bytes"] for place in (0, 1))
    # 2 taps of 192 channels in float16: 12 frames of 2 x 2 patches and a CLS token, or of 1 and it.
    assert (whole, pooled) == (2 * 192 * 2 * 12 * 5, 2 * 192 * 2 * 12 * 2)
    assert 0.0 < told["decode_share"] < 1.0
    assert (out / "motion.png").read_bytes().startswith(b"\x89PNG")
