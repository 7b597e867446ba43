"""Claims of losa.device."""

from __future__ import annotations

import pytest
import torch

from losa.device import AmpName, resolve_compute
from losa.errors import ResourceError, UsageError


@pytest.mark.parametrize(
    ("amp", "dtype"), [("auto", None), ("none", None), ("bfloat16", torch.bfloat16)]
)
def test_a_cpu_computes_in_float32_unless_told_otherwise(
    amp: AmpName, dtype: torch.dtype | None
) -> None:
    compute = resolve_compute("cpu", amp)
    assert compute.amp == dtype
    with compute.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (dtype or torch.float32)


def test_a_device_that_is_not_here_is_exit_6() -> None:
    with pytest.raises(ResourceError, match=r"--device: cuda:99: .*; use cpu") as caught:
        resolve_compute("cuda:99", "auto")
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:x", ""])
def test_a_name_that_is_no_device_is_exit_2(name: str) -> None:
    with pytest.raises(UsageError, match="--device") as caught:
        resolve_compute(name, "auto")
    assert caught.value.exit_code == 2


@pytest.mark.gpu
def test_cuda_is_chosen_where_there_is_one() -> None:
    compute = resolve_compute("auto", "auto")
    assert compute.device.type == "cuda"
    assert compute.amp == torch.bfloat16
