"""The plan of a store: what its features are, fixed before the first row is written.

Source: docs/store-format.md, section "Plan".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from losa.errors import MismatchError, StoreError, UsageError
from losa.features import FeatureSpec
from losa.store import files
from losa.version import __version__

FORMAT_MAJOR: Final = 1
FORMAT_MINOR: Final = 0

SPLIT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names that are safe as a folder of a store."""

WRITER: Final = re.compile(r"losa [0-9A-Za-z.+-]{1,64}")
"""Who began a store, as its metadata say it."""

MAX_ROWS: Final = 2**31
MAX_SHARD_ROWS: Final = 2**20
MAX_SIDE: Final = 2**16
MAX_CHANNELS: Final = 2**20
MAX_EXPONENT: Final = 127
MAX_RECORD_BYTES: Final = 2**40
MAX_VIEWS: Final = 64

VIEWED_SPLIT: Final = "train"
"""The split whose samples have the augmented views: of the others there are test views."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """One split: its listed samples, its rows (samples times views), and the listing's digest."""

    samples: int
    rows: int
    listing: str


@dataclass(frozen=True, slots=True)
class Numerics:
    """What changes features in their last bits: kind of device, autocast dtype, batch size.

    Also whether the forward was ``compiled``; a plan says so only where it was.
    """

    device: str
    autocast: str | None
    batch_size: int
    compiled: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        compiled = {"compiled": True} if self.compiled else {}
        common = {"device": self.device, "autocast": self.autocast, "batch_size": self.batch_size}
        return common | compiled


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides a store's values.

    ``backbone`` holds the model's name, its weights' digest and the token policy;
    ``preprocessing`` how pixels are made, and ``augment`` those of every view but the first;
    ``views`` are those of a train sample, ``test_views`` those of one of another split;
    ``exponents`` the power of two each tap was divided by before a float16 cast (calibrated, hence
    not part of the identity). ``calibration_split`` is the split that calibration looked at, and
    ``writer`` the version of losa that began the store: no parts of the identity either.
    """

    spec: FeatureSpec
    backbone: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    dataset: str
    classes: tuple[str, ...]
    splits: Mapping[str, SplitPlan]
    shard_rows: int
    order_seed: int
    calibration_rows: int
    numerics: Numerics
    exponents: tuple[int, ...] = ()
    writer: str = f"losa {__version__}"
    calibration_split: str = "train"
    views: int = 1
    augment: Mapping[str, Any] | None = None
    test_views: int = 1

    def views_of(self, split: str) -> int:
        """Views of each sample of a split."""
        return self.views if split == VIEWED_SPLIT else self.test_views

    def is_trained_beside_test_views(self, split: str) -> bool:
        """Whether a split's clips are seen in their middle, which no test view need be."""
        return split == VIEWED_SPLIT and self.test_views > 1

    def augment_in(self, split: str) -> Mapping[str, Any] | None:
        """How the views of a split are augmented; the others of a test sample are not."""
        return self.augment if split == VIEWED_SPLIT else None

    @property
    def identity(self) -> dict[str, Any]:
        """The values that make two stores the same store: no device, no paths, no batch size."""
        splits = {
            name: {"samples": split.samples, "rows": split.rows, "listing": split.listing}
            for name, split in self.splits.items()
        }
        augment = {} if self.augment is None else {"augment": dict(self.augment)}
        tested = {} if self.test_views == 1 else {"test_views": self.test_views}
        return {
            "features": self.spec.to_json(),
            "backbone": dict(self.backbone),
            "preprocessing": dict(self.preprocessing),
            "dataset": {"name": self.dataset, "classes": list(self.classes), "splits": splits},
            "views": self.views,
            **augment,
            **tested,
            "shard_rows": self.shard_rows,
            "order_seed": self.order_seed,
            "calibration_rows": self.calibration_rows,
        }

    @property
    def digest(self) -> str:
        """sha256 of the identity."""
        return files.sha256(files.canonical_json(self.identity))

    def with_taps(self, taps: tuple[int, ...]) -> Plan:
        """The same plan for a subset of the taps."""
        exponents = dict(zip(self.spec.taps, self.exponents, strict=True))
        some = tuple(exponents[tap] for tap in taps)
        return replace(self, spec=self.spec.with_taps(taps), exponents=some)

    def holds(self, other: Plan) -> bool:
        """Whether a store of this plan has every tap and split of one of the other plan.

        Plans that differ in anything else hold nothing of each other.
        """
        has_taps = set(other.spec.taps) <= set(self.spec.taps)
        has_splits = other.splits.keys() <= self.splits.keys()
        return has_taps and has_splits and not list(_other_fields(self, other))

    def to_json(self) -> dict[str, Any]:
        """The content of ``plan.json``."""
        return {
            "format": {"major": FORMAT_MAJOR, "minor": FORMAT_MINOR},
            "identity": self.identity,
            "numerics": self.numerics.to_json(),
            "exponents": list(self.exponents),
            "calibration_split": self.calibration_split,
            "writer": self.writer,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], path: Path) -> Plan:
        """Rebuild a plan from ``plan.json``.

        Raises:
            StoreError: the content is not a plan of this format.
        """
        try:
            _check_kinds(value)
            identity = value["identity"]
            dataset = identity["dataset"]
            plan = cls(
                spec=FeatureSpec.from_json(identity["features"]),
                backbone=identity["backbone"],
                preprocessing=identity["preprocessing"],
                dataset=dataset["name"],
                classes=tuple(dataset["classes"]),
                splits={name: _known(SplitPlan, item) for name, item in dataset["splits"].items()},
                shard_rows=identity["shard_rows"],
                order_seed=identity["order_seed"],
                calibration_rows=identity["calibration_rows"],
                numerics=_known(Numerics, {"compiled": False, **value["numerics"]}),
                exponents=tuple(value["exponents"]),
                writer=value["writer"],
                calibration_split=value["calibration_split"],
                views=identity["views"],
                augment=identity.get("augment"),
                test_views=identity.get("test_views", 1),
            )
            _check_bounds(plan)
            _check_views(plan)
            _check_splits(plan)
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise StoreError(path, f"is not a losa plan ({error!r})", "extract again") from None
        return plan


_Kind = TypeVar("_Kind", SplitPlan, Numerics)


def _known(kind: type[_Kind], value: Mapping[str, Any]) -> _Kind:
    """The fields that this version knows: a later minor version may have added others."""
    return kind(**{item.name: value[item.name] for item in fields(kind)})


def differing_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Name the fields in which two JSON objects differ, as ``a.b: ours / theirs``.

    Example:
        >>> list(differing_fields({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
        ['a.b: 1 / 3']
    """
    for key in sorted({*ours, *theirs}):
        left, right = ours.get(key), theirs.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from (f"{key}.{line}" for line in differing_fields(left, right))
        elif left != right:
            yield f"{key}: {_short(left)} / {_short(right)}"


def check_same_identity(path: Path, wanted: Plan, found: Plan) -> None:
    """Refuse to continue a store that is not the one asked for.

    Raises:
        MismatchError: an identity field differs; every differing field is named.
    """
    fields = list(differing_fields(wanted.identity, found.identity))
    if fields:
        todo = "give another --store, or --overwrite"
        if not found.holds(wanted) and not list(_other_fields(wanted, found)):
            todo = "add them with --extend, give another --store, or --overwrite"
        what = "holds another plan (asked / store): " + ", ".join(fields)
        raise MismatchError(path, what, todo)


def check_extends(path: Path, wanted: Plan, found: Plan) -> None:
    """Refuse to add to a store what is not the same but for its taps and splits.

    Raises:
        MismatchError: another identity field differs; every differing field is named.
    """
    fields = list(_other_fields(wanted, found))
    if fields:
        raise MismatchError(
            path,
            "cannot be extended by another plan (asked / store): " + ", ".join(fields),
            "give the flags that it was extracted with, or none for what shall stay as it is",
        )


def check_same_numerics(path: Path, wanted: Numerics, found: Numerics) -> None:
    """Refuse to mix two numerics classes; the batch size is the store's and not compared.

    Raises:
        MismatchError: the kind of device or the autocast dtype differs, or only one is compiled.
    """
    ours, theirs = ({**one.to_json(), "batch_size": 0} for one in (wanted, found))
    fields = list(differing_fields(ours, theirs))
    if fields:
        raise MismatchError(
            path,
            "was begun in another numerics class (asked / store): " + ", ".join(fields),
            "use the same device, --amp-dtype and --compile, or --allow-mixed-numerics",
        )


def _other_fields(ours: Plan, theirs: Plan) -> Iterator[str]:
    """Name the identity fields in which two plans differ, but for what one has more of."""
    common = ours.splits.keys() & theirs.splits.keys()
    yield from differing_fields(_core(ours, common), _core(theirs, common))


def _core(plan: Plan, splits: Set[str]) -> dict[str, Any]:
    """A plan's identity with some of its splits only, and no matter which taps."""
    some = {name: plan.splits[name] for name in splits}
    return replace(plan, spec=plan.spec.with_taps((0,)), splits=some).identity


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 -- one line of a terminal


def _check_kinds(value: Mapping[str, Any]) -> None:
    """Refuse values of another kind before a plan is made of them: types are hints to a file."""
    identity, numerics = value["identity"], value["numerics"]
    features, dataset = identity["features"], identity["dataset"]
    listings = [split["listing"] for split in dataset["splits"].values()]
    names = [dataset["name"], features["backbone"], value["writer"], *dataset["classes"]]
    autocast = [] if numerics["autocast"] is None else [numerics["autocast"]]
    texts = [*names, *listings, numerics["device"], *autocast]
    objects, lists = (identity["backbone"], identity["preprocessing"]), (dataset["classes"],)
    switches = [numerics.get("compiled", False), features["grid"].get("is_prefix_per_step", False)]
    for kind, parts in ((str, texts), (dict, objects), (list, lists), (bool, switches)):
        for part in parts:
            if not isinstance(part, kind):
                raise TypeError(f"{_short(part)} is no {kind.__name__}")


def _check_bounds(plan: Plan) -> None:
    """Refuse numbers that no extraction writes, before anything is computed from them."""
    spec, grid = plan.spec, plan.spec.grid
    for name in ("height", "width", "time"):
        _whole(f"grid.{name}", getattr(grid, name), 1, MAX_SIDE)
    _whole("grid.prefix", grid.prefix, 0, MAX_SIDE)
    _whole("channels", spec.channels, 1, MAX_CHANNELS)
    _whole("record", spec.record_bytes, 1, MAX_RECORD_BYTES)
    _whole("shard_rows", plan.shard_rows, 1, MAX_SHARD_ROWS)
    _whole("order_seed", plan.order_seed, 0, 2**64 - 1)
    _whole("calibration_rows", plan.calibration_rows, 1, MAX_ROWS)
    _whole("batch_size", plan.numerics.batch_size, 1, MAX_ROWS)
    for tap in spec.taps:
        _whole("tap", tap, 0, MAX_SIDE)
    for exponent in plan.exponents:
        _whole("exponent", exponent, 0, MAX_EXPONENT)
    if len(plan.exponents) != len(spec.taps):
        raise ValueError(f"{len(plan.exponents)} exponents for {len(spec.taps)} taps")
    if any(plan.exponents) and spec.dtype != "float16":
        raise ValueError(f"exponents in a store of {spec.dtype}")
    if not WRITER.fullmatch(plan.writer):
        raise ValueError(f"writer is {_short(plan.writer)!r}")
    if not SPLIT_NAME.fullmatch(plan.calibration_split):
        raise ValueError(f"calibration_split is {_short(plan.calibration_split)!r}")


def _check_views(plan: Plan) -> None:
    _whole("views", plan.views, 1, MAX_VIEWS)
    _whole("test_views", plan.test_views, 1, MAX_VIEWS)
    if plan.views == 1:
        if plan.augment is not None:
            raise ValueError("augment in a store of one view")
        return
    if not isinstance(plan.augment, dict):
        raise TypeError(f"augment is {_short(plan.augment)}")
    if not isinstance(plan.augment["policy"], str):
        raise TypeError(f"{_short(plan.augment['policy'])} is no str")
    _whole("augment.rules", plan.augment["rules"], 1, MAX_ROWS)
    _whole("augment.seed", plan.augment["seed"], 0, 2**64 - 1)


def _check_splits(plan: Plan) -> None:
    for name, split in plan.splits.items():
        if not SPLIT_NAME.fullmatch(name):
            raise ValueError(f"{_short(name)!r} is no name of a split")
        _whole("rows", split.rows, 1, MAX_ROWS)
        _whole("samples", split.samples, 1, split.rows)
        _whole("rows", split.rows, *[split.samples * plan.views_of(name)] * 2)


def _whole(name: str, value: object, low: int, high: int) -> None:
    # A bool is an int to Python, and not to the format.
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {_short(value)}")
