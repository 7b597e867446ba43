"""Every knob of losa, its default, and the one way a file and flags become a checked object.

A configuration is a frozen pydantic model: whoever holds one need not check it again. Precedence is
flag, then ``--config`` file, then the default written here.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from losa.errors import InputError, UsageError
from losa.features import StoreDtype

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
MAX_CONFIG_BYTES = 1 << 20


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
    img_size: Positive | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    calibration_rows: Annotated[int, Field(ge=1, le=2048)] = 512
    shard_rows: Positive | Literal["auto"] = "auto"
    batch_size: Positive | Literal["auto"] = "auto"
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    device: str = "auto"
    amp_dtype: Literal["auto", "none", "bfloat16", "float16"] = "auto"
    on_error: Literal["fail", "skip"] = "fail"
    max_skip: Annotated[Fraction, BeforeValidator(_percent)] = 0.01
    durability: Literal["full", "none"] = "full"
    overwrite: bool = False
    allow_mixed_numerics: bool = False


class AdaptConfig(Config):
    """What ``losa adapt`` needs: a store, a side network, and a training recipe."""

    store: Path = Path("features.zarr")
    out: Path | None = None
    adaptor: str = "losa"
    taps: str = "all"
    rank: Positive = 8
    token_rank: Positive | None = None
    order: Literal["channel-token", "token-channel"] = "channel-token"
    residual: Literal["refine", "sum", "stream"] = "refine"
    mixer_norm: bool = False
    pool: Literal["auto", "cls", "mean", "cls+mean"] = "auto"
    standardise: Literal["store", "raw"] = "store"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    lr: Annotated[float, Field(gt=0.0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-2
    epochs: Positive = 30
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 3.0
    batch_size: Positive = 32
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    mixup: Annotated[float, Field(ge=0.0)] = 0.0
    patience: Annotated[int, Field(ge=0)] | None = None
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    amp_dtype: Literal["auto", "none", "bfloat16", "float16"] = "auto"
    read_threads: Positive = 2
    prefetch: Positive = 2
    checkpoint_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    overwrite: bool = False


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
        value = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 -- a SafeLoader
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


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, but a repeated key is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        """Build one mapping, refusing a key that stands twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _readable(
    kind: type[Config], error: ValidationError, flags: Mapping[str, Any], file: Path | None
) -> UsageError | InputError:
    """One line for all mistakes of a configuration."""
    lines = []
    names = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    for name in sorted(names):
        item = next(e for e in error.errors() if e["loc"] and str(e["loc"][0]) == name)
        text = item["msg"].replace("Input should be", "should be")
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, kind.model_fields, n=1)
            text = "is not known" + (f" (did you mean {near[0]}?)" if near else "")
        elif item["type"] == "missing":
            text = "is needed"
        else:
            text = f"{text}, not {item['input']!r}"
        lines.append(f"--{name.replace('_', '-')} {text}")
    in_flags = file is None or bool(names & set(flags))
    subject = "flags" if in_flags else str(file)
    todo = "see --help"
    return (UsageError if in_flags else InputError)(subject, ", ".join(lines), todo)
