"""The side network in a notebook: the page's ten lines run, and train, on planes from anywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import losa
from tests.house_rules import ROOT
from tests.test_docs import python_blocks


def ten_lines() -> str:
    (block,) = (
        block
        for block in python_blocks((ROOT / "docs/api.md").read_text(encoding="utf-8"))
        if "timm.create_model" in block
    )
    return block


def test_the_pages_block_is_ten_lines_beside_its_imports() -> None:
    lines = [line for line in ten_lines().splitlines() if line.strip()]
    assert sum(not line.startswith("import ") for line in lines) == 10


def test_the_ten_lines_learn_what_can_be_learnt() -> None:
    torch.manual_seed(0)
    labels = torch.arange(16) % 2
    images = torch.randn(16, 3, 160, 160) * (1 + labels.view(-1, 1, 1, 1))
    names: dict[str, object] = {"images": images, "labels": labels}
    exec(compile(ten_lines(), "api.md", "exec"), names)
    model, planes = names["model"], names["planes"]
    assert isinstance(model, losa.LoSA)
    assert isinstance(planes, list)
    with torch.inference_mode():
        logits = model.eval()(planes)
        stacked = model(torch.stack(planes))
    assert (logits.argmax(1) == labels).all()
    assert torch.equal(logits, stacked)


@pytest.mark.parametrize("heavy", ["torch", "zarr", "timm", "numpy"])
def test_importing_losa_loads_nothing_heavy(heavy: str) -> None:
    code = f"import losa, sys; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
