"""``python -m demo``: from nothing to a trained adaptor and a prediction, command by command."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from demo.assets import BACKBONE, CACHE, fetch
from demo.command import CommandFailedError, losa, program
from demo.convert import MODEL, convert
from demo.digits import mnist
from demo.table import Row, table
from demo.textile import textile
from demo.tree import some_picture
from losa.errors import InputError, MismatchError

ADAPTORS = ("linear", "linear-all", "losa")
DATA: MappingProxyType[str, Callable[[Path], Path]] = MappingProxyType(
    {"mnist": mnist, "textile": textile}
)


@program
def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    _demo(_options(argv))
    return 0


def prepare(cache: Path) -> Path:
    """The converted backbone's safetensors, with the figures of its check on stdout."""
    weights = cache / f"{MODEL}.safetensors"
    agreements = convert(fetch(BACKBONE, cache) / BACKBONE.members, weights)
    print(f"{weights} against the ONNX graph's own tensors (max difference over scale):")
    for item in agreements:
        print(
            f"  {item.tensor:9} {item.same_grid:.1e} on the same position grid,"
            f" {item.timm_grid:.1e} on the grid that timm interpolates"
        )
    return weights


def _options(argv: list[str] | None) -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--data", default="mnist", help="mnist, textile, or a folder of yours")
    parser.add_argument("--img-size", type=int, default=112, help="a multiple of 14 (default 112)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="what it writes")
    parser.add_argument("--cache", type=Path, default=CACHE, help="what it fetches and converts")
    return parser.parse_args(argv)


def _demo(options: argparse.Namespace) -> None:
    """Fetch, convert, extract, adapt, evaluate, predict, and say where everything is."""
    started = time.perf_counter()
    folder = _data(options.data, options.cache)
    some_picture(folder)
    weights = prepare(options.cache)
    name = _name(options.data, folder, options.img_size)
    store = options.out / f"{name}.zarr"
    extracted = made(
        *("extract", "--model", "dinov2_s", "--weights", str(weights)),
        *("--dataset", f"folder:{folder}", "--img-size", str(options.img_size)),
        *("--taps", "every:3", "--store", str(store)),
    )
    split = "test" if "test" in extracted["splits"] else None
    runs = {adaptor: options.out / f"{name}-{adaptor}" for adaptor in ADAPTORS}
    rows = [_row(adaptor, run, store, extracted, split) for adaptor, run in runs.items()]
    _predict(runs["losa"], weights, store, some_picture(folder / (split or ""), seed=1))
    print(f"\n{table(rows)}\n")
    if split is None:
        print("there is no test split: the validation accuracy is all there is")
    print(f"extraction took {extracted['seconds']:.0f} s; one store serves all adaptors")
    print(f"pictures {folder}\nbackbone {weights}\nstore    {store}")
    print(f"runs     {', '.join(str(run) for run in runs.values())}")
    print(f"all done in {time.perf_counter() - started:.0f} s")


def _data(name: str, cache: Path) -> Path:
    """The folder of pictures that ``--data`` names."""
    if name in DATA:
        return DATA[name](cache)
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(
            "--data", f"{name!r} is no folder", f"give {' or '.join(DATA)}, or a split/class/file"
        )
    return folder


def _name(data: str, folder: Path, img_size: int) -> str:
    """What outputs are called: folders of one name in different places share nothing."""
    if data in DATA:
        return data
    place = folder.resolve()
    digest = hashlib.sha256(f"{place}\n{img_size}".encode()).hexdigest()
    return f"{place.name}-{digest[:8]}"


def made(*words: str) -> dict[str, Any]:
    """Run a command that makes something; what other pictures or settings left there is replaced.

    Raises:
        CommandFailedError: the command failed, for another reason than that or again.
    """
    try:
        return losa(*words)
    except CommandFailedError as error:
        if error.exit_code != MismatchError.exit_code:
            raise
    print("what is there was made of something else: once more, with --overwrite")
    return losa(*words, "--overwrite")


def _row(name: str, run: Path, store: Path, extracted: Mapping[str, Any], split: str | None) -> Row:
    """Train one adaptor and evaluate it on ``split``."""
    report = made("adapt", "--store", str(store), "--adaptor", name, "--out", str(run))
    test = None
    if split is not None:
        metrics = losa("evaluate", "--run", str(run), "--store", str(store), "--split", split)
        test = metrics["top1"]
    return Row(
        adaptor=name,
        val=report["metrics"].get("val", {}).get("top1"),
        test=test,
        seconds=report["timing"]["seconds"],
        trainable=report["parameters"]["trainable"],
        store_bytes=extracted["bytes"],
    )


def _predict(run: Path, weights: Path, store: Path, picture: Path) -> None:
    """Classify one picture from its pixels, and hold the cached features' answer against it."""
    result = losa(
        *("predict", str(picture), "--run", str(run), "--weights", str(weights)),
        *("--store", str(store), "--json"),
    )
    best, cached = result["predictions"][0]["top"][0], result["cache_check"]
    print(
        f"{picture.name} is of class {picture.parent.name};"
        f" losa says {best['class']} ({100 * best['probability']:.1f} %)"
    )
    if cached["compared"]:
        print(f"its cached features give the same logits to {cached['max_abs_difference']:.1e}")


if __name__ == "__main__":
    sys.exit(main())
