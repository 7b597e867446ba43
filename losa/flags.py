"""Flags that several verbs take, declared once: those of ``extract``, which ``plan`` prices.

A flag only says what it overrides; every default lives in ``losa/config.py`` and is shown from
there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from losa.config import AdaptConfig, Config, EvaluateConfig, ExtractConfig, SweepConfig

Verb = TypeVar("Verb", bound=Callable[..., None])
_E: Final = ExtractConfig
_V: Final = EvaluateConfig
_S: Final = SweepConfig


def flag(
    help_text: str, *names: str, of: type[Config] | None = None, default: str | None = None
) -> Any:
    """An option whose default is the configuration's own: shown in --help, owned there."""
    if of is not None and default is None and names:
        field = of.model_fields[names[0].lstrip("-").replace("-", "_").split("/")[0]]
        default = None if field.is_required() else str(field.get_default(call_default_factory=True))
    shown = default if default not in (None, "None") else False
    return typer.Option(*names, help=help_text, show_default=shown)


CONFIG: Final = typer.Option("--config", help="YAML file of the same names; flags win over it.")

EXTRACT: Final[Mapping[str, Any]] = {
    "model": Annotated[str | None, flag("timm name or alias; see losa models.", "--model")],
    "dataset": Annotated[
        str | None, flag("Name, path, folder:, csv:, wds: or hf:; see losa datasets.", "--dataset")
    ],
    "weights": Annotated[
        str | None, flag("safetensors file, or random. Default: the hub's.", "--weights")
    ],
    "data_dir": Annotated[
        Path | None,
        flag("Where named data sets lie.", "--data-dir", default="$LOSA_DATA, else data"),
    ],
    "split": Annotated[
        list[str] | None, flag("Splits to extract, repeatable. Default: all.", "--split")
    ],
    "store": Annotated[Path | None, flag("Store to write or resume.", "--store", of=_E)],
    "taps": Annotated[
        str | None, flag("all, auto, last, last:N, every:N or 3,7,11.", "--taps", of=_E)
    ],
    "tokens": Annotated[str | None, flag("all, pool:2x2 or summary.", "--tokens", of=_E)],
    "store_dtype": Annotated[
        str | None, flag("float16, int8, bfloat16 or float32.", "--store-dtype", of=_E)
    ],
    "img_size": Annotated[
        int | None, flag("Pixels a side.", "--img-size", default="the weights' own; DINOv2: 224")
    ],
    "views": Annotated[
        int | None, flag("Views of each train sample; the first is clean.", "--views", of=_E)
    ],
    "augment": Annotated[
        str | None, flag("crop-flip or randaug: what other views are.", "--augment", of=_E)
    ],
    "frames": Annotated[
        int | None,
        flag("Frames of a clip.", "--frames", default="of clips 16, or the weights' own"),
    ],
    "frame_stride": Annotated[
        str | None,
        flag(
            "Frames from one to the next, or uniform: spread over the file.",
            *("--frame-stride",),
            default="uniform; ViViT: 2",
        ),
    ],
    "short": Annotated[
        str | None, flag("Clips of too few frames: pad, loop or fail.", "--short", of=_E)
    ],
    "clips": Annotated[
        int | None, flag("Test views of a clip along time; not of train.", "--clips", of=_E)
    ],
    "crops": Annotated[int | None, flag("Test views along the longer side.", "--crops", of=_E)],
    "decoder": Annotated[str | None, flag("auto, decord or pyav.", "--decoder", of=_E)],
    "batch_size": Annotated[str | None, flag("Images per forward.", "--batch-size", "-b", of=_E)],
    "num_workers": Annotated[str | None, flag("Decoding processes.", "--num-workers", "-j", of=_E)],
    "device": Annotated[str | None, flag("auto, cpu, cuda:0.", "--device", of=_E)],
    "amp_dtype": Annotated[
        str | None, flag("auto, none, bfloat16 or float16.", "--amp-dtype", of=_E)
    ],
    "compile": Annotated[bool | None, flag("Compile the forward by torch.compile.", "--compile")],
    "on_error": Annotated[
        str | None, flag("fail, or skip unreadable samples.", "--on-error", of=_E)
    ],
    "on_nonfinite": Annotated[
        str | None,
        flag("fail, or skip samples whose features do not fit.", "--on-nonfinite", of=_E),
    ],
    "max_skip": Annotated[
        str | None, flag("Skipped share beyond which the exit code is 8.", "--max-skip", of=_E)
    ],
    "durability": Annotated[
        str | None, flag("full syncs every shard to disk; none does not.", "--durability", of=_E)
    ],
    "shard_rows": Annotated[
        str | None, flag("Rows of a shard, the unit of commit.", "--shard-rows", of=_E)
    ],
    "seed": Annotated[int | None, flag("Order of rows, and seeded splits.", "--seed", of=_E)],
    "overwrite": Annotated[bool | None, flag("Replace a store that is there.", "--overwrite")],
    "extend": Annotated[bool | None, flag("Add splits or taps to a sealed store.", "--extend")],
    "allow_mixed_numerics": Annotated[
        bool | None,
        flag("Resume on another kind of device or autocast.", "--allow-mixed-numerics"),
    ],
    "config": Annotated[Path | None, CONFIG],
}
"""The flags of ``losa extract``, by the names of its configuration."""

FLEET: Final[Mapping[str, Any]] = {
    "grace": Annotated[
        float | None, flag("Seconds to finish a shard when told to end.", "--grace", of=_E)
    ],
    "gpus": Annotated[
        int | None, flag("One process for each of so many CUDA devices, by torchrun.", "--gpus")
    ],
}
"""The flags of ``losa extract`` that say how it is run, not what is computed."""

PLAN: Final[Mapping[str, Any]] = {
    **{name: declared for name, declared in EXTRACT.items() if name != "config"},
    "probe": Annotated[
        bool | None, flag("Measure forward, decode and disk here for ten seconds.", "--probe")
    ],
    "budget": Annotated[
        str | None, flag("Space there is for the features, such as 500GB.", "--budget")
    ],
    "config": Annotated[Path | None, CONFIG],
}
"""The flags of ``losa plan``: what ``extract`` takes, and how to look at it."""

SCOUT: Final[Mapping[str, Any]] = {
    **{
        name: EXTRACT[name]
        for name in (
            *("model", "dataset", "weights", "data_dir", "split", "tokens", "store_dtype"),
            *("img_size", "views", "batch_size", "num_workers", "device", "amp_dtype", "seed"),
            *("frames", "frame_stride", "short", "decoder"),
        )
    },
    "samples": Annotated[
        int | None, flag("Samples to look at, of train and val.", "--samples", default="2000")
    ],
    "budget": PLAN["budget"],
    "out": Annotated[
        Path | None, flag("Folder of scout.json and scout.png.", "--out", default="scout")
    ],
    "config": EXTRACT["config"],
}
"""The flags of ``losa scout``: what ``extract`` takes, but for the taps that it advises."""


SWEEP: Final[Mapping[str, Any]] = {
    "store": Annotated[Path | None, flag("Store to train on.", "--store", of=_S)],
    "config": Annotated[
        Path | None,
        typer.Option("--config", help="YAML file of what to try. Default: the one in --out."),
    ],
    "out": Annotated[Path | None, flag("Folder of the sweep.", "--out", of=_S)],
    "workers": Annotated[
        int | None, flag("Processes here; on CUDA one for each device.", "--workers", of=_S)
    ],
    "yes": Annotated[bool | None, flag("Also train more than 10,000 trials.", "--yes")],
}
"""The flags of ``losa sweep``; what it tries stands in a file."""

EVALUATE: Final[Mapping[str, Any]] = {
    "run": Annotated[
        list[Path] | None,
        flag("Folder of a run; several of one setting give error bars over seeds.", "--run"),
    ],
    "store": Annotated[Path | None, flag("Store to read. Default: the run's own.", "--store")],
    "dataset": Annotated[
        str | None, flag("Raw media instead of a store, through the backbone.", "--dataset")
    ],
    "targets": Annotated[
        Path | None,
        flag("CSV file of targets by sample key.", "--targets", default="the run's own"),
    ],
    "split": Annotated[str | None, flag("Split to evaluate.", "--split", of=_V)],
    "views": Annotated[
        str | None,
        flag(
            "clean; average or logits: of probabilities or logits over a store's views; flip: with"
            " --dataset, over images and their mirror images.",
            *("--views",),
            of=_V,
        ),
    ],
    "weights": Annotated[
        str | None,
        flag("With --dataset: the backbone's weights.", "--weights", default="the hub's"),
    ],
    "data_dir": Annotated[
        Path | None,
        flag(
            "With --dataset: where named data sets lie.",
            *("--data-dir",),
            default="$LOSA_DATA, else data",
        ),
    ],
    "predictions": Annotated[
        Path | None, flag("CSV file for the prediction of every sample.", "--predictions")
    ],
    "out": Annotated[
        Path | None, flag("Folder for tables as CSV files and their picture.", "--out")
    ],
    "batch_size": Annotated[str | None, flag("Samples at a time.", "--batch-size", "-b", of=_V)],
    "num_workers": Annotated[
        str | None, flag("With --dataset: decoding processes.", "--num-workers", "-j", of=_V)
    ],
    "device": Annotated[str | None, flag("auto, cpu, cuda:0.", "--device", of=_V)],
}
"""The flags of ``losa evaluate``."""


CLIPS: Final[Mapping[str, Any]] = {
    "token_mixing": Annotated[
        str | None,
        flag(
            "auto, joint, factorised, space or time: what tokens are mixed along.",
            *("--token-mixing",),
            default="auto: factorised for videos",
        ),
    ],
    "token_order": Annotated[
        str | None, flag("space-time or time-space.", "--token-order", of=AdaptConfig)
    ],
    "time_rank": Annotated[int | None, flag("Rank along time.", "--time-rank", default="--rank")],
    "clip_frames": Annotated[
        int | None,
        flag("Time steps to see of a clip, drawn anew each epoch.", "--clip-frames", default="all"),
    ],
    "clip_stride": Annotated[
        int | None,
        flag("Steps between them.", "--clip-stride", default="one of each of equal parts"),
    ],
}
"""The flags of ``losa adapt`` for features of videos."""

LIVE: Final[Mapping[str, Any]] = {
    "live": Annotated[bool | None, flag("Train without a store, beside the backbone.", "--live")],
    **{
        name: EXTRACT[name]
        for name in (
            *("model", "dataset", "weights", "data_dir", "split", "tokens", "store_dtype"),
            *("img_size", "views", "augment", "num_workers", "compile", "on_error", "max_skip"),
            *("frames", "frame_stride", "short", "clips", "crops", "decoder"),
        )
    },
}
"""The flags of ``losa adapt`` that train without a store: of ``extract``'s, those it has not."""


def also_taking(declared: Mapping[str, Any]) -> Callable[[Verb], Verb]:
    """Give a verb of flags of its own these too, which it takes as keywords it does not name."""

    def sign(verb: Verb) -> Verb:
        own = inspect.signature(verb, eval_str=True).parameters.values()
        named = [one for one in own if one.kind is not inspect.Parameter.VAR_KEYWORD]
        vars(verb)["__signature__"] = inspect.Signature([*named, *_keywords(declared)])
        return verb

    return sign


def taking(declared: Mapping[str, Any]) -> Callable[[Verb], Verb]:
    """Give a verb that takes keywords these flags, none of them given by default."""

    def sign(verb: Verb) -> Verb:
        # typer asks for the signature, and nothing else, to know a verb's flags.
        vars(verb)["__signature__"] = inspect.Signature(_keywords(declared))
        return verb

    return sign


def _keywords(declared: Mapping[str, Any]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in declared.items()
    ]


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, without the configuration file's.

    Example:
        >>> given({"rank": 8, "split": ["val"], "seed": None, "config": Path("c.yaml")})
        {'rank': 8, 'split': ('val',)}
    """
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if name != "config" and value is not None and value != []
    }
