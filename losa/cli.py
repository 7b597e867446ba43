"""The command line: one function a verb, each a configuration and one call.

Flags only say what they override; every default lives in ``losa/config.py``. Torch and the rest
load inside the command that needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from losa import console, flags, verbs
from losa.config import AdaptConfig, EvaluateConfig, ExtractConfig, checked
from losa.errors import LosaError, MismatchError, SkippedError, UsageError
from losa.interrupt import StopRequest
from losa.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="LoSA: low-rank side adaptation of frozen vision backbones over cached features.",
)


_E, _A = ExtractConfig, AdaptConfig


@app.command(
    epilog="Example: losa extract --model dinov2_s --dataset folder:photos --store photos.zarr"
)
@flags.taking({**flags.EXTRACT, **flags.FLEET})
def extract(**given: Any) -> None:
    """Run the frozen backbone once and write its features; the same command resumes."""
    gpus = given.pop("gpus")
    settings = checked(ExtractConfig, flags.given(given), given["config"])
    verbs.local_store(settings.store)
    with StopRequest() as stop, stop.at_once(settings.store, "before it wrote a row"):
        from losa.extract import fleet
        from losa.extract.run import check_skips
        from losa.extract.run import extract as run

    if gpus is not None:
        fleet.start_processes(gpus, settings.device, sys.argv[1:])
    place = fleet.place_from_environment()
    if not place.is_first:
        console.show_warnings_only()
    with console.extract_bar(is_shown=place.is_first) as progress:
        result = run(settings, progress=progress, place=place)
    if place.is_first:
        console.show_result(result)
        check_skips(settings, result)


@app.command(epilog="Example: losa plan --model vit_g --dataset inat2018 --budget 500GB")
@flags.taking(flags.PLAN)
def plan(**given: Any) -> None:
    """Say what an extraction would cost and when it pays, before anything is there or is run."""
    extra = {name: given.pop(name) for name in ("probe", "budget")}
    settings = checked(ExtractConfig, flags.given(given), given["config"])
    verbs.local_store(settings.store)
    from losa.extract import statement
    from losa.extract.advice import parse_bytes
    from losa.extract.estimate import estimate

    budget = None if extra["budget"] is None else parse_bytes(extra["budget"])
    found = estimate(settings, budget=budget, is_probed=bool(extra["probe"]))
    for line in statement.head_lines(found):
        console.note(console.clean(line))
    console.show_table(statement.policy_rows(found), statement.COLUMNS)
    console.show_table(statement.cost_rows(found), ("cost", ""))
    if found.better:
        console.note(statement.room_line(found))
        console.show_table(statement.better_rows(found), statement.COLUMNS)
    console.note(f"losa: {found.verdict}")
    console.show_result(found.to_json())


@app.command(epilog="Example: losa adapt --store photos.zarr --adaptor losa --rank 8")
@flags.also_taking({**flags.CLIPS, **flags.LIVE})
def adapt(
    store: Annotated[Path | None, flags.flag("Store to train on.", "--store", of=_A)] = None,
    targets: Annotated[
        Path | None,
        flags.flag(
            "CSV of key,label or key,labels or key and numbers.",
            "--targets",
            default="the store's labels",
        ),
    ] = None,
    out: Annotated[
        Path | None, flags.flag("Folder of the run.", "--out", default="runs/<adaptor>-<digest>")
    ] = None,
    adaptor: Annotated[
        str | None,
        flags.flag(
            "losa, linear, linear-all, lst, attentive or summary-attention.", "--adaptor", of=_A
        ),
    ] = None,
    taps: Annotated[str | None, flags.flag("Taps of the store to use.", "--taps", of=_A)] = None,
    rank: Annotated[
        int | None, flags.flag("Width of each mixer's bottleneck.", "--rank", of=_A)
    ] = None,
    token_rank: Annotated[
        int | None, flags.flag("Rank along tokens.", "--token-rank", default="--rank")
    ] = None,
    order: Annotated[
        str | None, flags.flag("channel-token or token-channel.", "--order", of=_A)
    ] = None,
    residual: Annotated[
        str | None, flags.flag("refine, sum or stream.", "--residual", of=_A)
    ] = None,
    start: Annotated[str | None, flags.flag("y_0: auto or first.", "--start", of=_A)] = None,
    share_mixers: Annotated[
        bool | None, flags.flag("One mixer for all taps.", "--share-mixers/--no-share-mixers")
    ] = None,
    init_scale: Annotated[
        float | None, flags.flag("Scale of the mixers' start.", "--init-scale", of=_A)
    ] = None,
    mixer_norm: Annotated[
        bool | None,
        typer.Option(
            "--mixer-norm/--no-mixer-norm", help="LayerNorm inside the mixers.", show_default="no"
        ),
    ] = None,
    pool: Annotated[
        str | None, flags.flag("What the head sees: cls, mean or cls+mean.", "--pool", of=_A)
    ] = None,
    standardise: Annotated[
        str | None,
        flags.flag(
            "auto, tap: one scale a tap; store: mean and scale of each channel; raw: not at all.",
            *("--standardise",),
            of=_A,
        ),
    ] = None,
    lr: Annotated[float | None, flags.flag("Learning rate.", "--lr", of=_A)] = None,
    weight_decay: Annotated[
        float | None, flags.flag("Decay of weight matrices.", "--weight-decay", of=_A)
    ] = None,
    head_lr: Annotated[
        float | None, flags.flag("Learning rate of the head.", "--head-lr", default="--lr")
    ] = None,
    head_weight_decay: Annotated[
        float | None,
        flags.flag("Decay of the head.", "--head-weight-decay", default="--weight-decay"),
    ] = None,
    ema: Annotated[
        float | None, flags.flag("Average weights with this decay.", "--ema", default="off")
    ] = None,
    class_weights: Annotated[
        str | None, flags.flag("none, balanced or effective.", "--class-weights", of=_A)
    ] = None,
    regression_loss: Annotated[
        str | None, flags.flag("Loss of numbers: huber or mse.", "--regression-loss", of=_A)
    ] = None,
    epochs: Annotated[int | None, flags.flag("Passes over the store.", "--epochs", of=_A)] = None,
    batch_size: Annotated[
        int | None, flags.flag("Samples per step.", "--batch-size", "-b", of=_A)
    ] = None,
    patience: Annotated[
        int | None,
        flags.flag(
            "Epochs without a better val score before stopping.", "--patience", default="never"
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        flags.flag(
            "Share of train held out where there is no val; 0: none, the last epoch counts.",
            *("--val-fraction",),
            of=_A,
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None, flags.flag("Label smoothing.", "--label-smoothing", of=_A)
    ] = None,
    dropout: Annotated[
        float | None, flags.flag("Dropout of hidden units.", "--dropout", of=_A)
    ] = None,
    width: Annotated[
        int | None, flags.flag("Width of a rival.", "--width", default="the adaptor's own")
    ] = None,
    mixup: Annotated[
        float | None, flags.flag("Beta parameter of mixup in feature space.", "--mixup", of=_A)
    ] = None,
    seed: Annotated[int | None, flags.flag("Seed of all that is random.", "--seed", of=_A)] = None,
    data_seed: Annotated[
        int | None, flags.flag("Seed of what is read, and when.", "--data-seed", default="--seed")
    ] = None,
    device: Annotated[str | None, flags.flag("auto, cpu, cuda:0.", "--device", of=_A)] = None,
    amp_dtype: Annotated[
        str | None, flags.flag("auto, none, bfloat16 or float16.", "--amp-dtype", of=_A)
    ] = None,
    read: Annotated[
        str | None, flags.flag("auto, preadv, mmap, resident, stream or foreign.", "--read", of=_A)
    ] = None,
    overwrite: Annotated[bool | None, flags.flag("Start a run afresh.", "--overwrite")] = None,
    config: Annotated[Path | None, flags.CONFIG] = None,
    **live: Any,
) -> None:
    """Train a side network on a store, or --live; the same command resumes."""
    own = {name: value for name, value in locals().items() if name != "live"}
    own |= {name: live.pop(name) for name in flags.CLIPS}
    settings = checked(AdaptConfig, {**flags.given(own), **verbs.live_settings(own, live)}, config)
    if settings.live is None:
        verbs.local_store(settings.store)
        from losa.adapt.train import adapt as run
    else:
        from losa.live.training import adapt_live as run

    with console.adapt_bar() as progress:
        report = run(settings, progress=progress)
    console.show_result(report.to_json())


@app.command(epilog="Example: losa evaluate --run runs/losa-1a2b3c4d --store photos.zarr")
@flags.taking(flags.EVALUATE)
def evaluate(**given: Any) -> None:
    """Measure runs on a store's split, or on raw media through the live backbone."""
    found = flags.given(given)
    settings = checked(EvaluateConfig, found)
    verbs.local_store(settings.store)
    from losa.live.scoring import check_flags, evaluate_runs

    check_flags(settings, found)
    with console.extract_bar() as progress:
        outcome = evaluate_runs(settings, progress)
    for rows, header in outcome.tables():
        console.show_table(rows, header)
    console.show_result(outcome.result)


@app.command(epilog="Example: losa predict --run runs/losa-1a2b3c4d photo.jpg other.png")
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Images or videos, or folders of them.")],
    run: Annotated[Path, typer.Option(help="Folder of a run.")],
    weights: Annotated[
        str | None, typer.Option(help="The backbone's weights. Default: the hub's.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Also compare with the cached features of those paths it lists.",
            callback=verbs.local_store,
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to name per image.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="No table, only the JSON line.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1)] = 32,
    num_workers: Annotated[
        str | None, flags.flag("Decoding processes.", "--num-workers", "-j", of=_E)
    ] = None,
    device: Annotated[str, typer.Option()] = "auto",
) -> None:
    """Classify raw images: the live backbone beside the trained side network."""
    from losa.live.predict import PredictRequest, table_rows
    from losa.live.predict import predict as run_predict

    given = {"model": "", "dataset": "", "num_workers": num_workers}
    workers = checked(ExtractConfig, given).num_workers
    request = PredictRequest(
        *(run, tuple(paths), weights, store, top, batch_size, device), num_workers=workers
    )
    result = run_predict(request)
    if not as_json:
        rows = list(table_rows(result["predictions"]))
        is_of_classes = not any("numbers" in item for item in result["predictions"])
        header = ("class", "probability") if is_of_classes else ("number", "value")
        console.show_table(rows, ("path", *header))
    console.show_result(result)
    check = result.get("cache_check")
    if check and not check["compared"]:
        what = "none of these files stands in it just once, with features"
        console.note(console.clean(f"losa: {store}: nothing was compared; {what}"))
    elif check and not (
        check["same_classes"] and check["max_abs_difference"] <= check["tolerance"]
    ):
        figure, same = check["max_abs_difference"], check["same_classes"]
        what = f"live logits differ from cached ones by {figure:.3g} (same classes: {same})"
        causes = "give the files that were extracted, on the kind of device they were extracted on"
        raise MismatchError("--store", f"{what}, more than {check['tolerance']:g}", causes)
    failed = [item for item in result["predictions"] if "error" in item]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise SkippedError(failed[0]["path"], failed[0]["error"] + more, "mend or leave it out")


@app.command(epilog="Example: losa report runs/sweep")
def report(
    path: Annotated[Path, typer.Argument(help="Folder of a run or of a sweep.")],
    out: Annotated[
        Path | None,
        flags.flag("The page; its table lies beside.", "--out", default="PATH/report.html"),
    ] = None,
) -> None:
    """Make a page of a run or a sweep: ranking, curves, what was swept, what accuracy costs."""
    from losa.report.run import report as run

    result = run(path, out)
    console.show_result(result)


verbs.add_to(app)


@app.command()
def models() -> None:
    """List the aliases of backbones; any timm ViT's name works too."""
    from losa.extract.known import known_models

    rows = [asdict(model) for model in known_models()]
    console.show_table([tuple(row.values()) for row in rows], tuple(rows[0]))
    console.show_result(rows)


@app.command()
def datasets() -> None:
    """List the named data sets, the layout each is expected in, and where to get it."""
    from losa.extract.datasets import known_datasets

    rows = [asdict(dataset) for dataset in known_datasets()]
    console.show_table([tuple(row.values()) for row in rows], tuple(rows[0]))
    console.show_result(rows)


@app.command()
def doctor(
    path: Annotated[
        Path, typer.Option(help="Where stores will lie; its disk is measured.")
    ] = Path(),
) -> None:
    """Say whether this machine is fit: versions, devices, decoders, disk speed, and what to add."""
    from losa.live.doctor import examine

    findings = examine(path)
    rows = [("ok" if item["ok"] else "--", item["what"], item["found"]) for item in findings]
    console.show_table(rows, ("", "what", "found"))
    console.show_result(findings)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        console.show_result({"losa": __version__})
        raise typer.Exit


def _refuse_empty(words: Sequence[str]) -> None:
    """No flag and no argument means anything when it is empty; as a path it would mean "here"."""
    for before, word in zip(["", *words], words, strict=False):
        is_flag = word.startswith("--") and word.find("=") == len(word) - 1
        if is_flag or not word:
            subject = word[:-1] if is_flag else before if before.startswith("-") else "argument"
            raise UsageError(subject, "is empty", "give a value, or leave it out")


def _command() -> None:
    _refuse_empty(sys.argv[1:])
    try:
        code = app(standalone_mode=False, prog_name="losa")
    except LosaError:
        raise
    except Exception as error:
        # typer keeps click's exceptions to itself; what they share is this method.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(2)
        raise UsageError("losa", message().rstrip("."), "see losa --help") from None
    if code:
        # typer turns an interrupt into a return value; the console knows which signal it was.
        console.reraise_stop()
        sys.exit(code)


def main() -> None:
    """Run the command line; the exit code is the documented one."""
    sys.exit(console.run(_command))
