from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import sidestep, step
from benchmarks.sidestep import CLASSES, Shape, Step, batch_of, network
from tests.benchmarks.conftest import Published

SIDE = 256
TOY = Shape(3, 9, 16, 4, rank=2)


def test_a_step_is_timed_against_the_plain_module_and_the_floor(
    monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    monkeypatch.setattr(step, "SHAPES", dict.fromkeys(step.SHAPES, TOY))
    monkeypatch.setattr(step, "profile", lambda _: {})
    for module in (step, sidestep):
        monkeypatch.setattr(module, "GEMM", SIDE)
    threads = torch.get_num_threads()
    assert step.main(["--rounds", "2", "--no-compile", "--only", "3", "--threads", "1"]) == 0
    torch.set_num_threads(threads)
    document = published("step")
    assert len(document["cases"]) == 3
    for case in document["cases"].values():
        assert case["hits"]["faster"] == (case["to_plain"]["best"] >= step.FASTER)
        assert 1 <= case["kept_of_hidden"][step.FUSED] < case["kept_of_hidden"][step.PLAIN]
    assert document["hits"] == next(iter(document["cases"].values()))["hits"]


def test_a_step_on_clips_is_timed_against_the_plain_module_and_mixing_at_once(
    monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    monkeypatch.setattr(step, "CLIPS", Shape(3, 4 * 5, 16, 8, rank=2, steps=4))
    monkeypatch.setattr(step, "profile", lambda _: {})
    threads = torch.get_num_threads()
    assert step.main(["--video", "--batch", "2", "--rounds", "2", "--threads", "1"]) == 0
    torch.set_num_threads(threads)
    document = published("step_video")
    best = {name: found["best"] for name, found in document["seconds"].items()}
    assert set(best) == {step.PLAIN, step.FUSED, step.JOINT} == set(document["kept_bytes"])
    assert document["ratios"]["of_joint"]["best"] == pytest.approx(
        best[step.FUSED] / best[step.JOINT], rel=0.01
    )


def test_a_shape_of_clips_has_a_prefix_token_a_step() -> None:
    shape = Shape(2, 4 * 5, 16, 2, steps=4)
    assert shape.spec.shape == (2, 20, 16)
    assert (shape.spec.grid.time, shape.spec.grid.step_prefix) == (4, 1)
    assert network(shape, torch.device("cpu")).token_mixing == "factorised"
    assert network(shape, torch.device("cpu"), is_joint=True).token_mixing == "joint"


def test_the_floor_is_the_slower_of_products_and_memory() -> None:
    kept = {step.PLAIN: 10_000, step.FUSED: TOY.hidden_bytes * TOY.batch}
    flops = min(TOY.fused_flops(), TOY.plain_flops()) * TOY.batch
    product = 1e-3 * 2 * sidestep.GEMM**3 / flops  # so that the products of a step take 1 ms
    times = {step.PLAIN: [9e-3, 8e-3], step.FUSED: [4e-3, 2e-3], step.PRODUCT: [product, product]}
    by_products = step.report(TOY, times | {step.COPY: [5e-4, 5e-4]}, kept, 1)
    assert by_products["of_floor"]["by"] == "products"
    assert by_products["of_floor"]["best"] == pytest.approx(2.0)
    assert by_products["hits"] == {"faster": True, "floor": True, "kept": True}
    by_memory = step.report(TOY, times | {step.COPY: [4e-3, 2e-3]}, kept, 1)
    assert by_memory["of_floor"]["by"] == "memory"
    assert by_memory["of_floor"]["best"] == pytest.approx(1.0)


def test_the_flops_of_a_plain_forward_are_those_that_torch_counts() -> None:
    cpu = torch.device("cpu")
    adaptor, planes = network(TOY, cpu), batch_of(TOY, "float32", cpu)
    one = Step(adaptor, lambda planes: adaptor.plain(planes.raw), planes)
    with FlopCounterMode(display=False) as counter:
        one()
    head = 3 * 2 * TOY.channels * CLASSES * TOY.batch
    assert counter.get_total_flops() - head == TOY.plain_flops() * TOY.batch


def test_networks_that_disagree_are_not_timed() -> None:
    cpu = torch.device("cpu")
    planes = batch_of(TOY, "float32", cpu)
    first, second = network(TOY, cpu), network(TOY, cpu)
    torch.nn.init.normal_(second.head.linear.weight)
    with pytest.raises(AssertionError):
        step.check({"a": Step(first, first, planes), "b": Step(second, second, planes)})
