"""Fields of ``losa adapt``'s configuration that a sweep may set, and values of them checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from losa.config import AdaptConfig
from losa.sweep.mistakes import Mistakes, place, shown

NOT_SWEPT: Final[Mapping[str, str]] = {
    "store": "is one for the whole sweep; give it by --store",
    "out": "is each trial's own folder; give the sweep's by --out",
    "live": "needs no store, and a sweep is about sharing one",
    "overwrite": "means nothing here; give another --out to begin afresh",
}
"""Fields that a sweep cannot set, and why."""

SHARED: Final = ("targets", "device", "amp_dtype", "read", "read_threads", "prefetch")
"""Fields that all trials have in common."""


def check_fields(
    values: object, where: str, mistakes: Mistakes, *, is_base: bool = False
) -> dict[str, Any]:
    """Values of fields by name, each as the configuration would hold it; mistakes are noted."""
    if not isinstance(values, dict):
        mistakes.add(where, f"is not a mapping of fields to values, but {shown(values)}")
        return {}
    found = {}
    for key, value in values.items():
        at = place(where, str(key))
        name = field_name(key, at, mistakes, is_base=is_base)
        if name is None:
            continue
        if name in found:
            mistakes.add(at, "is given twice, with - and with _")
        found[name] = check_value(name, value, at, mistakes)
    return found


def field_name(key: object, at: str, mistakes: Mistakes, *, is_base: bool = False) -> str | None:
    """The field that a key names, if a sweep may set it there."""
    name = str(key).replace("-", "_")
    if name not in AdaptConfig.model_fields:
        mistakes.unknown(at, name, AdaptConfig.model_fields.keys() - NOT_SWEPT.keys())
        return None
    reason = NOT_SWEPT.get(name)
    if name in SHARED and not is_base:
        reason = "is one for the whole sweep; give it in base"
    if reason is not None:
        mistakes.add(at, reason)
        return None
    return name


def check_value(name: str, value: object, at: str, mistakes: Mistakes) -> Any:
    """A value of a field as the configuration would hold it."""
    try:
        return _validator(name)(value)
    except ValidationError as error:
        text = error.errors(include_url=False)[0]["msg"].replace("Input should be", "should be")
        mistakes.add(at, f"{text}, not {shown(value)}")
        return None


@cache
def _validator(name: str) -> Callable[[object], Any]:
    field = AdaptConfig.model_fields[name]
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    return adapter.validate_python
