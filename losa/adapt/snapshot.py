"""The state of a training in one file, so that a kill leaves the old state or the new one whole.

``last.safetensors`` holds the weights, the optimiser's moments, the best weights so far and the
losses of the running epoch as tensors, and the position as JSON in its header. No state of a random
number generator is needed: every step is seeded by its position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from losa.errors import MismatchError, StoreError
from losa.store.files import canonical_json, write_atomic

SNAPSHOT_FORMAT: Final = 1
_TODO: Final = "train again with --overwrite"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Tensors by name, and the position that belongs to them as plain JSON values."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors below ``name/``, without that prefix."""
        prefix = f"{name}/"
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }


def save_snapshot(path: Path, snapshot: Snapshot, run: str) -> None:
    """Write a snapshot of the run with that identity, whole or not at all."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()
    }
    facts = {
        "format": SNAPSHOT_FORMAT,
        "run": run,
        "state": snapshot.state,
        "tensors": _digest(tensors),
    }
    # One key: safetensors writes several in random order, and equal states should be equal files.
    header = {"losa": canonical_json(facts).decode()}
    write_atomic(path, safetensors.torch.save(tensors, metadata=header))


def load_snapshot(path: Path, run: str) -> Snapshot | None:
    """Read the snapshot of the run with that identity, or nothing if none was written yet.

    Raises:
        StoreError: the file is damaged or of another format.
        MismatchError: it belongs to another run.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        tensors = safetensors.torch.load(data)
        # The library has checked the header's size by now.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header["__metadata__"]["losa"])
        is_ours = facts["format"] == SNAPSHOT_FORMAT
        is_whole = is_ours and facts["tensors"] == _digest(tensors)
        snapshot = Snapshot(tensors, facts["state"] if is_ours else {})
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreError(path, f"is damaged: {error}", _TODO) from None
    if not is_ours:
        raise StoreError(path, f"has format {facts['format']!r}", _TODO)
    if not is_whole:
        raise StoreError(path, "is damaged: its tensors are not those saved", _TODO)
    if facts["run"] != run:
        raise MismatchError(path, "belongs to another run than adaptor.json", _TODO)
    return snapshot


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names and bytes; safetensors itself notices no flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
