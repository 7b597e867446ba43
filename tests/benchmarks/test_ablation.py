"""Claims of benchmarks.ablation."""

from __future__ import annotations

import pytest

from benchmarks.ablation import VARIANTS
from losa.config import AdaptConfig


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_valid_configuration_that_differs_from_the_default(name: str) -> None:
    changed = AdaptConfig(**VARIANTS[name])
    assert (changed == AdaptConfig()) == (name == "default")
