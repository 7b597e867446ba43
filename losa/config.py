"""Every knob of losa, its default, and the one way a file and flags become a checked object.

A configuration is a frozen pydantic model: whoever holds one need not check it again. Precedence is
flag, then ``--config`` file, then the default written here.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from losa.errors import InputError, UsageError
from losa.features import Regime, StoreDtype

Seed = Annotated[int, Field(ge=0, lt=2**63)]
ShardRows = Annotated[int, Field(ge=1, le=1024)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Views = Annotated[int, Field(ge=1, le=64)]
Policy = Literal["crop-flip", "randaug"]
Frames = Annotated[int, Field(ge=1, le=1024)]
Stride = Frames | Literal["uniform"]
Short = Literal["pad", "loop", "fail"]
ImgSize = Annotated[int, Field(ge=1, le=16_384)]
Rank = Annotated[int, Field(ge=1, le=65_536)]
Epochs = Annotated[int, Field(ge=1, le=10**9)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
MAX_CONFIG_BYTES = 1 << 16
_MAX_SCALAR = 4096
"""Characters of a value in a file: the longest path, and no number that takes long to read."""

_MAX_SHOWN = 60
_MAX_MISTAKES = 30


def _percent(value: object) -> object:
    """Turn ``"1%"`` into ``0.01`` and leave everything else to pydantic."""
    if isinstance(value, str) and value.endswith("%"):
        return float(value[:-1]) / 100
    return value


class Config(BaseModel):
    """Base of all configurations: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class ExtractConfig(Config):
    """What ``losa extract`` needs: a backbone, a data set, and what to keep of its features."""

    model: str
    dataset: str
    weights: str | None = None
    data_dir: Path = Field(default_factory=lambda: Path(os.environ.get("LOSA_DATA", "data")))
    split: tuple[str, ...] | None = None
    store: Path = Path("features.zarr")
    taps: str = "auto"
    tokens: str = "all"
    store_dtype: StoreDtype = "float16"
    img_size: ImgSize | None = None
    views: Views = 1
    augment: Policy = "crop-flip"
    frames: Frames | None = None
    frame_stride: Stride | None = None
    short: Short = "pad"
    clips: Views = 1
    crops: Views = 1
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    seed: Seed = 0
    calibration_rows: Annotated[int, Field(ge=1, le=2048)] = 512
    shard_rows: ShardRows | Literal["auto"] = "auto"
    batch_size: BatchSize | Literal["auto"] = "auto"
    num_workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"
    device: str = "auto"
    amp_dtype: Literal["auto", "none", "bfloat16", "float16"] = "auto"
    compile: bool = False
    on_error: Literal["fail", "skip"] = "fail"
    on_nonfinite: Literal["fail", "skip"] = "fail"
    max_skip: Annotated[Fraction, BeforeValidator(_percent)] = 0.01
    durability: Literal["full", "none"] = "full"
    grace: Annotated[float, Field(ge=0.0, le=86_400.0)] = 25.0
    overwrite: bool = False
    extend: bool = False
    allow_mixed_numerics: bool = False


class LiveConfig(Config):
    """What ``losa adapt --live`` needs instead of a store: what extraction would be told.

    Names and defaults are those of :class:`ExtractConfig`.
    """

    model: str
    dataset: str
    weights: str | None = None
    data_dir: Path = Field(default_factory=lambda: Path(os.environ.get("LOSA_DATA", "data")))
    split: tuple[str, ...] | None = None
    taps: str = "auto"
    tokens: str = "all"
    store_dtype: StoreDtype = "float16"
    img_size: ImgSize | None = None
    views: Views = 1
    augment: Policy = "crop-flip"
    frames: Frames | None = None
    frame_stride: Stride | None = None
    short: Short = "pad"
    clips: Views = 1
    crops: Views = 1
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    calibration_rows: Annotated[int, Field(ge=1, le=2048)] = 512
    num_workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"
    compile: bool = False
    on_error: Literal["fail", "skip"] = "fail"
    max_skip: Annotated[Fraction, BeforeValidator(_percent)] = 0.01


class AdaptConfig(Config):
    """What ``losa adapt`` needs: a store, a side network, and a training recipe."""

    store: Path = Path("features.zarr")
    live: LiveConfig | None = None
    targets: Path | None = None
    out: Path | None = None
    adaptor: str = "losa"
    taps: str = "all"
    rank: Rank = 32
    token_rank: Rank | None = None
    order: Literal["channel-token", "token-channel"] = "channel-token"
    residual: Literal["refine", "sum", "stream"] = "refine"
    start: Literal["auto", "first"] = "auto"
    share_mixers: bool = False
    init_scale: Annotated[float, Field(gt=0.0)] = 1.0
    mixer_norm: bool = False
    pool: Literal["auto", "cls", "mean", "cls+mean"] = "auto"
    standardise: Literal["auto", "tap", "store", "raw"] = "auto"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    width: Rank | None = None
    token_mixing: Literal["auto", "joint", "factorised", "space", "time"] = "auto"
    token_order: Literal["space-time", "time-space"] = "space-time"
    time_rank: Rank | None = None
    clip_frames: Frames | None = None
    clip_stride: Frames | None = None
    lr: Annotated[float, Field(gt=0.0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    epochs: Epochs = 30
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 3.0
    batch_size: BatchSize = 32
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    mixup: Annotated[float, Field(ge=0.0)] = 0.0
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    head_lr: Annotated[float, Field(gt=0.0)] | None = None
    head_weight_decay: Annotated[float, Field(ge=0.0)] | None = None
    class_weights: Literal["none", "balanced", "effective"] = "none"
    regression_loss: Literal["huber", "mse"] = "huber"
    patience: Annotated[int, Field(ge=0, le=10**9)] | None = None
    val_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    seed: Seed = 0
    data_seed: Seed | None = None
    device: str = "auto"
    amp_dtype: Literal["auto", "none", "bfloat16", "float16"] = "auto"
    read: Regime = "auto"
    read_threads: Threads = 2
    prefetch: Threads = 2
    checkpoint_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    overwrite: bool = False

    @property
    def reading_seed(self) -> int:
        """Seed of what is read: order of epochs, views, rows that are held out for val."""
        return self.seed if self.data_seed is None else self.data_seed


class SweepConfig(Config):
    """Where a sweep lies and who trains it; what it tries is read by losa/sweep/strategy.py."""

    store: Path = Path("features.zarr")
    out: Path = Path("runs/sweep")
    workers: Annotated[int, Field(ge=1, le=1024)] = 1


class EvaluateConfig(Config):
    """What ``losa evaluate`` needs: runs, and a split of a store or of raw media."""

    run: tuple[Path, ...]
    store: Path | None = None
    dataset: str | None = None
    targets: Path | None = None
    split: str = "test"
    views: Literal["clean", "average", "logits", "flip"] = "clean"
    weights: str | None = None
    data_dir: Path = Field(default_factory=lambda: Path(os.environ.get("LOSA_DATA", "data")))
    predictions: Path | None = None
    out: Path | None = None
    batch_size: BatchSize = 64
    num_workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"
    device: str = "auto"


AnyConfig = TypeVar("AnyConfig", bound=Config)


def checked(kind: type[AnyConfig], flags: Mapping[str, Any], file: Path | None = None) -> AnyConfig:
    """Build a configuration from flags over a YAML file over the defaults.

    A flag that is ``None`` was not given. All mistakes are reported at once.

    Raises:
        UsageError: a flag's value is out of range or of the wrong type, or a needed flag is absent.
        InputError: the file is unreadable, is not a mapping, or holds a wrong or unknown key.
    """
    from_file = load_yaml(file) if file is not None else {}
    from_flags = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**{**from_file, **from_flags})
    except ValidationError as error:
        raise _readable(kind, error, from_flags, file) from None


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with string keys; duplicate keys and large files are mistakes.

    Raises:
        InputError: the file is missing, too large, not YAML, not a mapping, or repeats a key.
    """
    try:
        too_large = path.stat().st_size > MAX_CONFIG_BYTES
        text = "" if too_large else path.read_text(encoding="utf-8")
        value = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 -- a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(path, " ".join(str(error).split()), "mend the file") from None
    if too_large:
        raise InputError(path, f"is larger than {MAX_CONFIG_BYTES} bytes", "split it")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(path, "is not a mapping of names to values", "write `name: value` lines")
    named = {key.replace("-", "_"): item for key, item in value.items()}
    if len(named) < len(value):
        raise InputError(path, "gives one name twice, with - and with _", "remove one of them")
    return named


def to_yaml(config: Config) -> str:
    """Write a configuration as YAML that :func:`checked` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without what a configuration needs not: anchors, tags and long values.

    Anchors let a few lines stand for billions of values, a wrong tag is met with any exception, and
    keys other than text let a mapping be built in quadratic time.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one value, refusing ``&name``, ``*name`` and ``!!kind``."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors, aliases and tags are not taken", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        """Build one value from its text, refusing a long one before it is read as a number."""
        if isinstance(node, yaml.ScalarNode) and len(node.value) > _MAX_SCALAR:
            raise yaml.constructor.ConstructorError(
                None, None, f"a value has more than {_MAX_SCALAR} characters", node.start_mark
            )
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        """Build one mapping, refusing a key that is no text or stands twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            is_text = key.tag == "tag:yaml.org,2002:str"
            if not is_text or key.value in seen:
                what = f"key {_shown(key.value)} stands twice" if is_text else "a key is no text"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _shown(value: object) -> str:
    """A value for a message, whatever its size: the text that stands for it is cut."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = _MAX_SHOWN
    try:
        text = brief.repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _readable(
    kind: type[Config], error: ValidationError, flags: Mapping[str, Any], file: Path | None
) -> UsageError | InputError:
    """One line for all mistakes of a configuration."""
    first: dict[str, ErrorDetails] = {}
    for item in error.errors(include_url=False):
        if item["loc"]:
            first.setdefault(str(item["loc"][0]), item)
    names = sorted(first)
    lines = [_mistake(kind, name, first[name]) for name in names[:_MAX_MISTAKES]]
    if len(names) > _MAX_MISTAKES:
        lines.append(f"and {len(names) - _MAX_MISTAKES:,} more")
    in_flags = file is None or bool(first.keys() & flags.keys())
    subject = "flags" if in_flags else str(file)
    todo = "see --help"
    return (UsageError if in_flags else InputError)(subject, ", ".join(lines), todo)


def _mistake(kind: type[Config], name: str, item: ErrorDetails) -> str:
    """What is wrong with one flag or key."""
    text = item["msg"].replace("Input should be", "should be")
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name[:_MAX_SHOWN], kind.model_fields, n=1)
        text = "is not known" + (f" (did you mean {near[0]}?)" if near else "")
    elif item["type"] == "missing":
        text = "is needed"
    else:
        text = f"{text}, not {_shown(item['input'])}"
    plain = name.isprintable() and len(name) <= _MAX_SHOWN
    return f"--{name.replace('_', '-')} {text}" if plain else f"{_shown(name)} {text}"
