"""A crew's claims: all is done, in order, by one thread each, and torch is left as it was."""

from __future__ import annotations

import threading

import pytest
import torch

from losa.adapt.crew import Crew


@pytest.fixture(name="threads")
def fixture_threads() -> int:
    return torch.get_num_threads()


def test_results_come_in_the_order_of_the_items_and_torch_is_as_before(threads: int) -> None:
    torch.set_num_threads(3)
    try:
        with Crew(torch.device("cpu")) as crew:
            seen = crew.each(lambda i: (i, torch.get_num_threads()), list(range(8)))
            assert torch.get_num_threads() == 3
        assert seen == [(i, 1) for i in range(8)]
    finally:
        torch.set_num_threads(threads)


def test_an_error_of_one_is_raised_and_torch_is_as_before(threads: int) -> None:
    torch.set_num_threads(2)
    try:
        with Crew(torch.device("cpu")) as crew:
            with pytest.raises(ZeroDivisionError):
                crew.each(lambda i: 1 // i, [1, 0, 2])
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_with_one_thread_or_on_a_device_all_is_done_here(threads: int) -> None:
    torch.set_num_threads(1)
    try:
        for device in ("cpu", "meta"):
            with Crew(torch.device(device)) as crew:
                assert set(crew.each(lambda _: threading.get_ident(), [1, 2])) == {
                    threading.get_ident()
                }
    finally:
        torch.set_num_threads(threads)
