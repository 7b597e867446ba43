"""A run's adaptor on disk: ``adaptor.json`` says what it is, ``best.safetensors`` its weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from losa.adapt.adaptor import Adaptor
from losa.adapt.numberscores import Scale
from losa.adapt.options import SideOptions
from losa.adapt.registry import build_adaptor
from losa.adapt.snapshot import load_snapshot
from losa.adapt.targets import Kind
from losa.errors import StoreError, UsageError
from losa.features import FeatureSpec
from losa.store.files import canonical_json, sha256, write_atomic
from losa.version import __version__

FORMAT: Final = 1
CARD_NAME: Final = "adaptor.json"
MAX_CARD_BYTES: Final = 1 << 26
LATER_OPTIONS: Final = (
    *("start", "share_mixers", "init_scale"),
    *("token_mixing", "token_order", "time_rank", "clip_frames", "clip_stride"),
)
"""Switches that came after the first cards."""


@dataclass(frozen=True, slots=True)
class AdaptorCard:
    """Everything static of a run: enough to rebuild its adaptor and to refuse what does not fit.

    ``store_id`` and ``config_digest`` are identities of the store and of the configuration it was
    trained with; ``backbone`` (weights and tokens policy included) and ``preprocessing`` are the
    store's plan; ``exponents`` are its powers of two, one a tap, and ``quantiser`` mean and scale
    of its channels, of int8 alone. ``order_seed`` is the seed of its data set's 80/20 split,
    ``listings`` has the digest of each split's listed samples, and ``numerics`` is how the store's
    backbone was computed (device, autocast, batch size). ``task`` is what logits are: of
    ``classes`` one holds, of ``labels`` any number; of ``numbers`` each is one in units of its
    deviation, ``scale`` has mean and deviation of each, and ``classes`` their names. ``targets`` is
    the digest of the file of targets, if there was one.
    """

    adaptor: str
    options: SideOptions
    spec: FeatureSpec
    classes: tuple[str, ...]
    store_id: str
    backbone: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    config_digest: str
    order_seed: int
    listings: Mapping[str, str]
    numerics: Mapping[str, Any]
    exponents: tuple[int, ...] = ()
    quantiser: tuple[tuple[tuple[float, ...], ...], ...] = ()
    task: Kind = "classes"
    targets: str = ""
    scale: Scale = ()
    losa: str = __version__
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of :meth:`from_json`."""
        return {
            "format": self.format,
            "losa": self.losa,
            "adaptor": self.adaptor,
            "options": self._options_json(),
            "spec": self.spec.to_json(),
            "classes": list(self.classes),
            "store_id": self.store_id,
            "backbone": dict(self.backbone),
            "preprocessing": dict(self.preprocessing),
            "config_digest": self.config_digest,
            "order_seed": self.order_seed,
            "listings": dict(self.listings),
            "numerics": dict(self.numerics),
            "exponents": list(self.exponents),
            **({"quantiser": self._quantiser_json()} if self.quantiser else {}),
            **self._task_json(),
        }

    def _options_json(self) -> dict[str, Any]:
        """Without what cards from before these options did not have, where it is as by default."""
        values = asdict(self.options)
        # Floats even if integers were given: the digest must survive a round trip.
        values.update({name: float(values[name]) for name in ("dropout", "init_scale")})
        usual = asdict(SideOptions())
        later = [name for name in LATER_OPTIONS if values[name] == usual[name]]
        return {name: value for name, value in values.items() if name not in later}

    def _task_json(self) -> dict[str, Any]:
        """Nothing for what is as in most runs: one label a sample, of the store's own."""
        values = {
            "task": "" if self.task == "classes" else self.task,
            "targets": self.targets,
            "scale": [list(pair) for pair in self.scale],
        }
        return {name: value for name, value in values.items() if value}

    def _quantiser_json(self) -> list[list[list[float]]]:
        return [[list(values) for values in tap] for tap in self.quantiser]

    @classmethod
    def from_json(cls, value: Mapping[str, Any], subject: object = CARD_NAME) -> AdaptorCard:
        """Rebuild a card from :meth:`to_json`'s values, checked to the last key.

        Raises:
            StoreError: the format is another one, or a key is missing, unknown or of a wrong type.
        """
        if value.get("format") != FORMAT:
            raise StoreError(
                subject,
                f"has format {value.get('format')!r}; this losa reads format {FORMAT}",
                "use the losa that wrote it, or train again",
            )
        try:
            card = TypeAdapter(cls).validate_json(json.dumps(dict(value)), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "card"
            raise StoreError(subject, f"{place}: {first['msg']}", "train again") from None
        # Pydantic passes over unknown keys of dataclasses; coming back the same is strict.
        if card.to_json() != dict(value):
            raise StoreError(subject, "holds keys that no adaptor has", "train again")
        if not _has_its_scales(card):
            raise StoreError(
                subject, f"quantiser: is not what {card.spec.dtype} has", "train again"
            )
        if not _has_a_scale(card):
            raise StoreError(subject, f"scale: is not what {card.task} have", "train again")
        return card

    @property
    def digest(self) -> str:
        """Identity of the run: sha256 of all but the version of losa that wrote the card."""
        content = {name: value for name, value in self.to_json().items() if name != "losa"}
        return sha256(canonical_json(content))

    @property
    def metadata(self) -> dict[str, str]:
        """What :func:`save_weights` is to write beside weights that belong to this card."""
        return {"card": self.digest}


def save_card(run_dir: Path, card: AdaptorCard) -> None:
    """Write a run's ``adaptor.json``, whole or not at all."""
    text = json.dumps(card.to_json(), indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(run_dir / CARD_NAME, f"{text}\n".encode())


def load_card(run_dir: Path) -> AdaptorCard:
    """Read a run's ``adaptor.json``.

    Raises:
        StoreError: it is missing, damaged, or of another format.
    """
    path = run_dir / CARD_NAME
    data = _read(path, MAX_CARD_BYTES)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreError(path, f"is not JSON: {error}", "train again") from None
    if not isinstance(value, dict):
        raise StoreError(path, "is not a JSON object", "train again")
    return AdaptorCard.from_json(value, path)


def save_weights(path: Path, module: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a module's tensors as safetensors, whole or not at all.

    Give ``card.metadata`` (and more, if there is more to remember) as ``metadata``: weights are
    read back only beside the card they were saved for. A digest of the tensors is added.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()
    }
    facts = {**metadata, "tensors": _tensors_digest(tensors)}
    # One key: the library writes several in random order, and equal weights should be equal files.
    header = {"losa": canonical_json(facts).decode()}
    write_atomic(path, safetensors.torch.save(tensors, metadata=header))


def load_weights(path: Path, card: AdaptorCard) -> dict[str, Tensor]:
    """Read the tensors that :func:`save_weights` wrote for this card.

    Raises:
        StoreError: the file is missing, damaged, or belongs to another run.
    """
    data = _read(path)
    try:
        tensors = safetensors.torch.load(data)
        # The library has checked the header's size by now.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header.get("__metadata__", {}).get("losa", "{}"))
        found = (facts.get("card"), facts.get("tensors"))
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(path, f"is damaged: {error}", "train again") from None
    if found[0] != card.digest:
        raise StoreError(path, f"belongs to another run than {CARD_NAME}", "train again")
    if found[1] != _tensors_digest(tensors):
        raise StoreError(path, "is damaged: its tensors are not those saved", "train again")
    return tensors


def load_adaptor(run_dir: Path, *, which: str = "best") -> tuple[Adaptor, AdaptorCard]:
    """Rebuild a run's adaptor on the CPU, ready to predict, with its card.

    Torch's random numbers stay where they were.

    Args:
        run_dir: the folder that ``losa adapt`` wrote.
        which: ``best``, or ``last``: those of the snapshot, averaged if the run averages.

    Raises:
        StoreError: the run is missing, damaged, of another format, or its files do not belong
            together.
        MismatchError: the snapshot is another run's.
    """
    card = load_card(run_dir)
    path = run_dir / f"{which}.safetensors"
    tensors = _last_weights(path, card) if which == "last" else load_weights(path, card)
    try:
        with torch.random.fork_rng(devices=[]):
            adaptor = build_adaptor(card.adaptor, card.spec, len(card.classes), card.options)
        adaptor.load_state_dict(tensors)
    except (RuntimeError, UsageError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(path, f"does not fit {CARD_NAME}: {reason}", "train again") from None
    return adaptor.eval(), card


def _last_weights(path: Path, card: AdaptorCard) -> dict[str, Tensor]:
    """The weights of a run's last snapshot that its val would judge."""
    snapshot = load_snapshot(path, card.digest)
    if snapshot is None:
        raise StoreError(path, "does not exist", "give the folder of a run that has begun")
    return snapshot.group("ema") or snapshot.group("weights")


def _has_a_scale(card: AdaptorCard) -> bool:
    """Whether numbers have a finite mean and deviation each, and other tasks have none."""
    count = len(card.classes) if card.task == "numbers" else 0
    is_finite = all(math.isfinite(mean) and 0 < std < math.inf for mean, std in card.scale)
    return is_finite and len(card.scale) == count


def _has_its_scales(card: AdaptorCard) -> bool:
    """Whether int8 has a finite mean and scale a tap and channel, and others have none."""
    taps, _, channels = card.spec.shape
    if card.spec.dtype != "int8":
        return card.quantiser == ()
    if [[len(values) for values in tap] for tap in card.quantiser] != [[channels] * 2] * taps:
        return False
    means, scales = zip(*card.quantiser, strict=True)
    is_finite = all(math.isfinite(mean) for tap in means for mean in tap)
    return is_finite and all(0 < scale < math.inf for tap in scales for scale in tap)


def _read(path: Path, limit: int | None = None) -> bytes:
    try:
        if limit is not None and path.stat().st_size > limit:
            raise StoreError(path, f"is larger than {limit} bytes", "train again")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(path, "does not exist", "give the folder of a finished run") from None


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, dtypes, shapes and bytes; safetensors itself notices no flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
