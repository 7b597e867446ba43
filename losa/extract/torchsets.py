"""Data sets as torchvision lays them out on disk, read without its code, pickles or downloads."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from losa.errors import InputError, UsageError
from losa.extract import idx
from losa.extract.annotations import Listed, path_kind, read_json, read_text, safe_path
from losa.extract.folders import files_below, list_folder
from losa.extract.samples import Listing


@dataclass(frozen=True, slots=True)
class TorchSet:
    """One data set: its folders below the data folder (the first there counts), its reader."""

    folders: tuple[str, ...]
    layout: str
    read: Callable[[Path], Listing]
    source: str = "https://pytorch.org/vision/stable/datasets.html"


def list_known(name: str, data_dir: Path) -> Listing:
    """The samples of a data set that lies in ``data_dir`` as torchvision leaves it there.

    Raises:
        UsageError: the name is not known, or the data set exists as a pickle or a .mat file only.
        InputError: it is missing, or not laid out as torchvision lays it out.
    """
    if name in REFUSED:
        todo = "save its images to folders, or use hf: for a copy of it"
        raise UsageError("--dataset", f"{name} {REFUSED[name]}", todo)
    known = SETS.get(name)
    if known is None:
        near = difflib.get_close_matches(name, SETS, n=1)
        todo = f"did you mean {near[0]}? " if near else ""
        raise UsageError("--dataset", f"{name!r} is no known data set", f"{todo}see losa datasets")
    for folder in known.folders:
        if path_kind(data_dir / folder) == "folder":
            return replace(_read(name, known, data_dir / folder), name=name)
    todo = f"unpack {name} there ({known.layout}), or name its folder with --data-dir"
    raise InputError(data_dir / known.folders[0], "is missing", todo)


def _read(name: str, known: TorchSet, root: Path) -> Listing:
    try:
        return known.read(root)
    except InputError:
        raise
    except (ValueError, LookupError, csv.Error) as error:
        what = f"is not laid out as {name} is ({' '.join(str(error).split())})"
        raise InputError(root, what, "fetch and unpack it again") from None


def _folders(root: Path) -> Listing:
    """split/class/file, or class/file."""
    return list_folder(root, named=True)


def _caltech101(root: Path) -> Listing:
    """class/file; torchvision too leaves the background out, which is no class."""
    listing = list_folder(root, named=True)
    return replace(
        listing, lines=[item for item in listing.lines if item.label != "BACKGROUND_Google"]
    )


def _food101(root: Path) -> Listing:
    """meta/SPLIT.json: for every class its images, without their extension."""
    lines = []
    for split in ("train", "test"):
        file = root / "meta" / f"{split}.json"
        value = read_json(file, keep=None)
        if not isinstance(value, dict):
            raise InputError(file, "is no object of classes", "fetch the file again")
        for label, images in sorted(value.items()):
            for image in images if isinstance(images, list) else [images]:
                path = safe_path(f"images/{image}.jpg", file, f"class {label!r}")
                lines.append(Listed(path, label, split, f"{file.name}: {image}"))
    return Listing("", root, root, lines)


def _dtd(root: Path) -> Listing:
    """labels/SPLIT1.txt: class/file; the first of ten partitions, as torchvision's default."""
    lines = []
    for split in ("train", "val", "test"):
        file = root / "labels" / f"{split}1.txt"
        for where, line in _lines(file):
            label, _, _ = line.partition("/")
            lines.append(Listed(safe_path(f"images/{line}", file, where), label, split, where))
    return Listing("", root, root, lines)


def _oxford_iiit_pet(root: Path) -> Listing:
    """annotations/{trainval,test}.txt: 'Breed_name_12 37 2 4'; trainval is called train."""
    lines = []
    for split, stem in (("train", "trainval"), ("test", "test")):
        file = root / "annotations" / f"{stem}.txt"
        for where, line in _lines(file):
            image = line.split()[0]
            path = safe_path(f"images/{image}.jpg", file, where)
            lines.append(Listed(path, image.rpartition("_")[0] or image, split, where))
    return Listing("", root, root, lines)


def _fgvc_aircraft(root: Path) -> Listing:
    """data/images_variant_SPLIT.txt: '0034309 737-200'."""
    lines = []
    for split in ("train", "val", "test"):
        file = root / "data" / f"images_variant_{split}.txt"
        for where, line in _lines(file):
            image, _, label = line.partition(" ")
            path = safe_path(f"data/images/{image}.jpg", file, where)
            lines.append(Listed(path, _class(label, file, where), split, where))
    return Listing("", root, root, lines)


def _gtsrb(root: Path) -> Listing:
    """GTSRB/Training/CLASS/*.ppm; GT-final_test.csv names the class of every test image."""
    lines = []
    for path in sorted(files_below(root / "GTSRB" / "Training", [])):
        label = path.partition("/")[0]
        lines.append(Listed(f"GTSRB/Training/{path}", f"{int(label):05d}", "train", path))
    file = root / "GT-final_test.csv"
    for row in csv.DictReader(io.StringIO(read_text(file)), delimiter=";"):
        where = f"image {row.get('Filename')!r}"
        path = safe_path(f"GTSRB/Final_Test/Images/{row.get('Filename')}", file, where)
        label = _class(row.get("ClassId") or "", file, where)
        lines.append(Listed(path, label.zfill(len("00000")), "test", where))
    return Listing("", root, root, lines)


def _sun397(root: Path) -> Listing:
    """ClassName.txt: '/a/abbey'; images lie in the folder of their class."""
    file = root / "ClassName.txt"
    lines: list[Listed] = []
    for where, line in _lines(file):
        folder = safe_path(line.lstrip("/"), file, where)
        label = folder.partition("/")[2] or folder
        paths = [f"{folder}/{path}" for path in sorted(files_below(root / folder, []))]
        lines += [Listed(path, label, None, path) for path in paths]
    return Listing("", root, root, lines)


def _celeba(root: Path) -> Listing:
    """list_attr_celeba.txt: 40 attributes, 1 or -1; list_eval_partition.txt: 0, 1 or 2."""
    file = root / "list_attr_celeba.txt"
    parts = root / "list_eval_partition.txt"
    partition = dict(line.split()[:2] for _, line in _lines(parts))
    (_, _), (_, header), *rows = _lines(file)
    names = tuple(header.split())
    lines = []
    for where, line in rows:
        image, *marks = line.split()
        split = {"0": "train", "1": "val", "2": "test"}.get(partition.get(image, ""))
        if split is None or len(marks) != len(names):
            raise InputError(file, f"{where}: {image!r} is not listed whole", "fetch it again")
        labels = tuple(name for name, mark in zip(names, marks, strict=True) if mark == "1")
        path = safe_path(f"img_align_celeba/{image}", file, where)
        lines.append(Listed(path, None, split, where, labels))
    return Listing("", root, root, lines, names)


def _lines(file: Path) -> Iterable[tuple[str, str]]:
    """The lines of a list that are not empty, and where they stand."""
    lines = enumerate(read_text(file).splitlines(), 1)
    return [(f"{file.name} line {number}", line.strip()) for number, line in lines if line.strip()]


def _class(label: str, file: Path, where: str) -> str:
    """A class's name, which must not be empty."""
    if not label.strip():
        raise InputError(file, f"{where}: no class", "fetch the file again")
    return label.strip()


_PICKLED: Final = "is released as pickle files, which run code when read: losa reads none"
_MATLAB: Final = "has its labels in MATLAB files, which losa does not read"
REFUSED: Final[Mapping[str, str]] = {
    "cifar10": _PICKLED,
    "cifar100": _PICKLED,
    "flowers102": _MATLAB,
    "stanford_cars": _MATLAB,
    "svhn": _MATLAB,
}
"""Data sets of torchvision that losa leaves alone, and why."""

_BY_CLASS: Final = "class/picture.jpg"
_BY_SPLIT: Final = "split/class/picture.jpg"

SETS: Final[Mapping[str, TorchSet]] = {
    "imagenet": TorchSet(("imagenet", "ILSVRC2012"), f"imagenet: {_BY_SPLIT}", _folders),
    "imagenette": TorchSet(
        ("imagenette2", "imagenette2-320", "imagenette2-160"), f"imagenette2: {_BY_SPLIT}", _folders
    ),
    "country211": TorchSet(("country211",), f"country211: {_BY_SPLIT}", _folders),
    "rendered_sst2": TorchSet(("rendered-sst2",), f"rendered-sst2: {_BY_SPLIT}", _folders),
    "eurosat": TorchSet(("eurosat/2750",), f"eurosat/2750: {_BY_CLASS}", _folders),
    "caltech101": TorchSet(
        ("caltech101/101_ObjectCategories",),
        f"caltech101/101_ObjectCategories: {_BY_CLASS}",
        _caltech101,
    ),
    "caltech256": TorchSet(
        ("caltech256/256_ObjectCategories",),
        f"caltech256/256_ObjectCategories: {_BY_CLASS}",
        _folders,
    ),
    "food101": TorchSet(("food-101",), "food-101: meta/{train,test}.json; images/", _food101),
    "dtd": TorchSet(("dtd/dtd",), "dtd/dtd: labels/{train,val,test}1.txt; images/", _dtd),
    "oxford_iiit_pet": TorchSet(
        ("oxford-iiit-pet",),
        "oxford-iiit-pet: annotations/{trainval (as train),test}.txt; images/",
        _oxford_iiit_pet,
    ),
    "fgvc_aircraft": TorchSet(
        ("fgvc-aircraft-2013b",),
        "fgvc-aircraft-2013b: data/images_variant_{train,val,test}.txt; data/images/",
        _fgvc_aircraft,
    ),
    "gtsrb": TorchSet(
        ("gtsrb",), "gtsrb: GTSRB/Training/, GTSRB/Final_Test/Images/; GT-final_test.csv", _gtsrb
    ),
    "sun397": TorchSet(("SUN397",), "SUN397: ClassName.txt; a/abbey/picture.jpg", _sun397),
    "celeba": TorchSet(
        ("celeba",),
        "celeba: list_attr_celeba.txt (several labels), list_eval_partition.txt; img_align_celeba/",
        _celeba,
    ),
    **{
        name: TorchSet((known.folder,), f"{known.folder}: {known.pattern}", known.read)
        for name, known in idx.SETS.items()
    },
}
"""What ``--dataset NAME`` or ``--dataset torchvision:NAME`` takes."""
