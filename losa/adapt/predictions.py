"""What was predicted for each sample of a split, and its table as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from losa.errors import UsageError
from losa.features import Sample


class Predictions:
    """Best class and its probability of each scored sample; on the device until they are asked for.

    Args:
        samples: the data set's listing.
        listed: positions in it of the samples that are evaluated, readable or not.
        labels: the class of each of these.
        classes: names of the classes.
        device: where logits come from.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        listed: Int64[np.ndarray, "n"],
        labels: Int64[np.ndarray, "n"],
        classes: Sequence[str],
        device: torch.device | str = "cpu",
    ) -> None:
        self._samples = samples
        self._classes = classes
        order = np.argsort(listed)
        self._listed, self._labels = listed[order], labels[order]
        self._source: list[Int64[np.ndarray, "..."]] = []
        self._best = torch.empty(len(listed), dtype=torch.int64, device=device)
        self._confidence = torch.empty(len(listed), dtype=torch.float32, device=device)
        self._count = 0

    def add(self, source: Int64[np.ndarray, "..."], logits: Float[Tensor, "n y"]) -> None:
        """Take what was said of the samples at these positions of the listing."""
        place = slice(self._count, self._count + len(source))
        # Of the logits, as the metrics have it: rounding makes some of their probabilities equal.
        self._best[place] = logits.argmax(1)
        self._confidence[place] = logits.softmax(1).amax(1)
        self._source.append(np.asarray(source, dtype=np.int64))
        self._count += len(source)

    def confidences(self) -> tuple[Float32[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
        """Probability of each predicted class, and whether it is the sample's."""
        source, best, confidence = self._found()
        return confidence, best == self._labels[np.searchsorted(self._listed, source)]

    def csv(self) -> bytes:
        """``key,label,predicted,probability`` of every listed sample, in the data set's order.

        The last two are empty where the sample could not be read.
        """
        source, best, confidence = self._found()
        pairs = zip(best.tolist(), confidence.tolist(), strict=True)
        said = dict(zip(source.tolist(), pairs, strict=True))
        rows: list[tuple[object, ...]] = []
        classes = self._classes
        for place, label in zip(self._listed.tolist(), self._labels.tolist(), strict=True):
            found = said.get(place)
            prediction = ("", "") if found is None else (classes[found[0]], f"{found[1]:.6f}")
            rows.append((self._samples[place].key, classes[label], *prediction))
        return csv_of(("key", "label", "predicted", "probability"), rows)

    def _found(
        self,
    ) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
        source = np.concatenate([np.zeros(0, np.int64), *self._source])
        best, confidence = self._best[: self._count], self._confidence[: self._count]
        return source, best.cpu().numpy(), confidence.cpu().numpy()


def csv_of(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    r"""A table as CSV.

    Example:
        >>> csv_of(("class", "rows"), [("a,b", 3)])
        b'class,rows\n"a,b",3\n'
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue().encode()


def check_places(predictions: Path | None, out: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        UsageError: there is no folder for the predictions, or ``out`` is a file or lies below one.
    """
    if predictions is not None and not predictions.parent.is_dir():
        what = f"the folder {predictions.parent} does not exist"
        raise UsageError("--predictions", what, "make it first")
    if predictions is not None and predictions.is_dir():
        raise UsageError("--predictions", f"{predictions} is a folder", "name a file")
    first = next((part for part in (out, *out.parents) if part.exists()), None) if out else None
    if first is not None and not first.is_dir():
        raise UsageError("--out", f"{first} is a file", "name a folder")
