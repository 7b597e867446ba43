"""Claims of losa.live.scoutfeatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from losa.extract.datasets import load_dataset
from losa.extract.extraction import ExtractEvent
from losa.extract.planning import gather_inputs
from losa.features import TokenGrid
from losa.live.scoutfeatures import gather, summariser, summary_bytes
from tests.extract.picture_folder import picture_folder, tiny_config


def test_a_summary_is_prefix_then_mean_patch_then_means_of_cells_with_time() -> None:
    grid = TokenGrid(height=8, width=8, time=4, prefix=2)
    plane = torch.from_numpy(np.random.default_rng(0).normal(size=(3, grid.num_tokens, 5)))
    summary, keep = summariser(grid)
    found = keep(plane.float()).numpy()
    patches = plane[:, 2:].numpy().reshape(3, 4, 8, 8, 5)
    cells = patches.reshape(3, 2, 2, 4, 2, 4, 2, 5).mean((2, 4, 6)).reshape(3, 32, 5)
    wanted = np.concatenate([plane[:, :2], patches.mean((1, 2, 3))[:, None], cells], axis=1)
    assert (summary.prefix, summary.cells, summary.tokens) == (2, 32, 35)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_where_each_step_has_its_prefix_each_has_a_mean_and_cells_leave_prefixes_out() -> None:
    grid = TokenGrid(height=4, width=4, time=4, prefix=4, is_prefix_per_step=True)
    plane = torch.from_numpy(np.random.default_rng(0).normal(size=(3, grid.num_tokens, 5)))
    summary, keep = summariser(grid)
    found = keep(plane.float()).numpy()
    patches = plane[:, 4:].numpy().reshape(3, 4, 16, 5)
    cells = patches.reshape(3, 2, 2, 16, 5).mean(2).reshape(3, 32, 5)
    wanted = np.concatenate([plane[:, :4], patches.mean(2), cells], axis=1)
    assert (summary.prefix, summary.means, summary.cells, summary.tokens) == (4, 4, 32, 40)
    assert summary.first_cell == 8
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_memory_is_what_was_said_and_bad_samples_are_left_out(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "p", {"train": 3, "val": 1})
    (data / "train/red/001.png").write_text("<html>")
    inputs = gather_inputs(tiny_config(data, tmp_path / "none.zarr", taps="all"))
    samples = load_dataset(f"folder:{data}", tmp_path).splits["train"]
    events: list[ExtractEvent] = []
    found = gather(
        *(inputs.backbone, inputs.dataset, samples),
        batch_size=4,
        workers=0,
        progress=events.append,
    )
    assert found.values.nbytes == summary_bytes(inputs.backbone, 9) == 9 * 12 * 6 * 192 * 2
    (bad,) = [number for number, sample in enumerate(samples) if "red/001" in sample.path]
    assert found.ok.tolist() == [number != bad for number in range(9)]
    assert found.values[:, bad].abs().max() == 0
    assert [(event.done, event.row_bytes) for event in events] == [(4, 0), (8, 0), (9, 0)]


def test_samples_are_summarised_alike_whatever_batch_they_are_in(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "p", {"train": 3, "val": 1})
    inputs = gather_inputs(tiny_config(data, tmp_path / "none.zarr", taps="all"))
    samples = inputs.dataset.splits["train"]
    one, other = (
        gather(
            *(inputs.backbone, inputs.dataset, samples),
            batch_size=size,
            workers=0,
            progress=lambda _: None,
        )
        for size in (2, 9)
    )
    torch.testing.assert_close(one.values, other.values, rtol=1e-2, atol=1e-2)
