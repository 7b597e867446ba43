"""The verbs of a store on the command line: look at, check, mend, clean, compare, hand on.

Whatever changes a store says first what it would do, and does it with ``--yes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from losa import console, flags
from losa.config import ExtractConfig, LiveConfig, checked, load_yaml
from losa.errors import MismatchError, StoreError, UsageError

# A path has one slash where a URL has two.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_store(store: Path | None) -> Path | None:
    """A store as it is given, unless as a URL, which no command reads.

    Raises:
        UsageError: it is a URL.
    """
    if store is not None and _URL.match(str(store)):
        what = "URLs are read by losa.open_store from Python only"
        raise UsageError("--store", what, "give a folder or a file")
    return store


_STORE = typer.Argument(help="A store.", callback=local_store)
_YES = typer.Option("--yes", help="Do it. Without, only say what would be done.")


def add_to(app: typer.Typer) -> None:
    """Add every verb of this module to the command line."""
    for verb, example in (
        (inspect, "losa inspect photos.zarr"),
        (verify, "losa verify photos.zarr --quick"),
        (repair, "losa repair photos.zarr --yes"),
        (gc, "losa gc photos.zarr --older-than 0 --yes"),
        (diff, "losa diff photos.zarr copy.zarr"),
        (export, "losa export photos.zarr --out photos.h5"),
        (import_, "losa import photos.h5 --store photos.zarr"),
        (sweep, "losa sweep --store photos.zarr --config configs/sweep/grid.yaml --workers 2"),
        (scout, "losa scout --model dinov2_s --dataset folder:photos --budget 500GB"),
    ):
        app.command(verb.__name__.rstrip("_"), epilog=f"Example: {example}")(verb)


@flags.taking(flags.SWEEP)
def sweep(**given: Any) -> None:
    """Train many settings on one store and choose on val; the same command goes on."""
    is_meant = bool(given.pop("yes"))
    from losa.sweep.processes import member_from_environment
    from losa.sweep.run import Sweep, check_failures, read_sweep

    member = member_from_environment()
    if member is not None:
        console.show_warnings_only()
    settings, sections, file = read_sweep(flags.given(given), given["config"])
    local_store(settings.store)
    found = Sweep(settings, sections, file, is_meant=is_meant)
    with console.trials_bar(is_shown=member is None) as tell:
        found.train(tell, member)
    if member is None:
        result = found.conclude()
        console.show_result(result)
        check_failures(result)


def inspect(
    store: Annotated[Path, typer.Argument(help="A store, sealed or not.", callback=local_store)],
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every two seconds until it is sealed.")
    ] = False,
) -> None:
    """Say what a store holds, how far it has come, and who writes it."""
    from losa.store.inspect import describe_store, watch_store

    found = {} if watch else describe_store(store)
    if watch:
        with console.redrawing() as draw, console.ending_by_ctrl_c():
            for found in watch_store(store):
                draw(_progress_lines(found))
    else:
        for line in _progress_lines(found):
            console.note(console.clean(line))
    console.show_result(found)


def _progress_lines(found: Mapping[str, Any]) -> list[str]:
    """A store's summary for people: what it is, how far it has come, who writes it."""
    lines = [f"{name:12} {found[name]}" for name in ("store_id", "sealed", "dataset", "classes")]
    lines.append(f"{'token_bytes':12} {found['token_bytes']}")
    if found["views"] > 1:
        lines.append(f"{'views':12} {found['views']} of train, by {found['augment']['policy']}")
    if found["test_views"] > 1:
        lines.append(f"{'test_views':12} {found['test_views']} of every split but train")
    lines.append(f"{'model':12} {found['backbone']['model']}, taps {found['features']['taps']}")
    names = ("rows", "shards", "committed")
    rows = [(name, *(item[key] for key in names)) for name, item in found["splits"].items()]
    lines += console.table_lines(rows, ("split", *names))
    if found.get("rows_per_second") is not None:
        lines.append(f"{found['rows_per_second']:g} rows/s")
    return lines + [
        f"shard {claim['shard']} of {claim['split']}: process {claim['pid']} on {claim['host']}, "
        + ("dead" if claim["dead"] else f"beat {claim['beat_age_seconds']:g} s ago")
        for claim in found["claims"]
    ]


def verify(
    store: Annotated[Path, _STORE],
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the records.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every record (the default).")] = False,
    recompute: Annotated[
        int | None,
        typer.Option(min=1, help="Also extract so many random rows again, and compare."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="With --recompute: the folder that the samples' paths lie below."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="With --recompute: the backbone's weights.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="With --recompute: which rows.", show_default="0"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="With --recompute: auto, cpu, cuda:0.", show_default="auto"),
    ] = None,
) -> None:
    """Look for damage: every file there, whole, and the one that was written."""
    from losa.store.verify import verify_store

    if quick and deep:
        raise UsageError("--quick", "does not go with --deep", "give one of them")
    raw = {"--images": images, "--weights": weights, "--seed": seed, "--device": device}
    _check_raw(raw, is_wanted=recompute is not None)
    with console.bytes_bar() as progress:
        problems = verify_store(store, deep=not quick, progress=progress)
    for problem in problems:
        console.note(console.clean(f"{problem.path}: {problem.what}"))
    listed = [{"path": problem.path, "what": problem.what} for problem in problems]
    result: dict[str, Any] = {"store": str(store), "sound": not problems, "problems": listed}
    if recompute is not None and not problems:
        from losa.extract.recompute import RecomputeRequest, recompute_rows

        request = RecomputeRequest(store, recompute, images, weights, seed or 0, device or "auto")
        result["recomputed"] = recompute_rows(request)
    console.show_result(result)
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        todo = "see what losa repair would do"
        raise StoreError(store / first.path, first.what + more, todo)
    if "recomputed" in result and not result["recomputed"]["within"]:
        raise _otherwise(store, result["recomputed"])


def _check_raw(flags: Mapping[str, object], *, is_wanted: bool) -> None:
    """Refuse what says how to recompute where nothing is, and a folder that is not there."""
    for flag, value in flags.items():
        if value is not None and not is_wanted:
            raise UsageError(flag, "needs --recompute", "a store is checked without it")
    images = flags["--images"]
    if isinstance(images, Path) and not images.is_dir():
        raise UsageError("--images", f"{images} is no folder", "name the one samples lie below")


def _otherwise(store: Path, found: Mapping[str, Any]) -> MismatchError:
    """Rows that differ speak of how they were made; rows that were not compared, of files."""
    rows, lost = found["rows"], found["not_compared"]
    what, causes = [], []
    if differ := found["failed"] - lost:
        what.append(f"{differ} of {rows} rows differ (worst relative L2 {found['worst']:.3g})")
        causes.append("check weights, preprocessing and files")
    if lost:
        first = next(item for item in found["failures"] if "reason" in item)
        what.append(
            f"{lost} of {rows} rows could not be compared ({first['path']}: {first['reason']})"
        )
        causes.append("check --images")
    return MismatchError(store, ", ".join(what), ", ".join([*causes, "see the JSON line"]))


def repair(
    store: Annotated[Path, _STORE],
    yes: Annotated[bool, _YES] = False,
) -> None:
    """Mend what can be derived, and set aside what must be extracted again."""
    from losa.store.repair import repair_store

    with console.bytes_bar() as progress:
        done = repair_store(store, act=yes, progress=progress)
    result = {"store": str(store), "done": yes, **done.to_json()}
    rows = [(action["act"], action["path"], action["why"]) for action in result["actions"]]
    if rows:
        console.show_table(rows, ("act", "path", "why"))
    console.show_result(result)
    if rows and not yes:
        console.note("losa: nothing was changed; give --yes to do it")


def gc(
    store: Annotated[Path, _STORE],
    older_than: Annotated[
        float, typer.Option(min=0, help="Days that what repair set aside is kept.")
    ] = 7.0,
    yes: Annotated[bool, _YES] = False,
) -> None:
    """Remove what dead processes left, and what repair set aside long ago."""
    from losa.store.cleaning import clean_store

    done = clean_store(store, older_than_days=older_than, act=yes)
    result = {"store": str(store), "done": yes, **done.to_json()}
    rows = [(item["path"], item["bytes"], item["why"]) for item in result["removed"]]
    if rows:
        console.show_table(rows, ("path", "bytes", "why"))
    console.show_result(result)
    if rows and not yes:
        console.note("losa: nothing was removed; give --yes to do it")


def diff(
    left: Annotated[Path, typer.Argument(help="A sealed store.", callback=local_store)],
    right: Annotated[Path, typer.Argument(help="Another one.", callback=local_store)],
    rtol: Annotated[
        float, typer.Option(min=0, help="Relative L2 distance of a tap that still counts as equal.")
    ] = 0.0,
) -> None:
    """Compare two stores, record by record, in true units; exit code 5 when they differ."""
    from losa.store.comparing import compare_stores

    with console.bytes_bar() as progress:
        found = compare_stores(left, right, rtol=rtol, progress=progress).to_json()
    columns = ("split", "tap", "rows", "identical", "max_abs", "relative_l2", "least_cosine")
    console.show_table([tuple(row[name] for name in columns) for row in found["taps"]], columns)
    for line in found["plan"]:
        console.note(console.clean(line))
    console.show_result({"left": str(left), "right": str(right), **found})
    if not (found["identical"] or (rtol and found["within"])):
        what = f"differs from {left}"
        raise MismatchError(right, what, "see the table, or give a larger --rtol")


def export(
    store: Annotated[Path, typer.Argument(help="A sealed store.", callback=local_store)],
    out: Annotated[Path, typer.Option(help="The HDF5 file to write.")],
    taps: Annotated[str, typer.Option(help="all, last:N, every:N or 3,7,11.")] = "all",
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Splits, repeatable. Default: all.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a store, or some of its taps and splits, to one HDF5 file."""
    from losa.store.exchange import export_store

    splits = tuple(split) if split else None
    with console.bytes_bar() as progress:
        result = export_store(
            store, out, taps=taps, splits=splits, overwrite=overwrite, progress=progress
        )
    console.show_result(result)


def import_(
    file: Annotated[Path, typer.Argument(help="An HDF5 file of losa export.")],
    store: Annotated[Path, typer.Option(help="The store to write.", callback=local_store)],
    durability: Annotated[
        str, typer.Option(help="full syncs every shard to disk; none does not.")
    ] = "full",
) -> None:
    """Write a store from an HDF5 file; the same command resumes."""
    from losa.store.exchange import import_store

    if durability not in ("full", "none"):
        raise UsageError("--durability", f"{durability!r} is unknown", "give full or none")
    with console.bytes_bar() as progress:
        result = import_store(file, store, durable=durability == "full", progress=progress)
    console.show_result(result)


def live_settings(own: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """What ``losa adapt`` is told of its features where it trains live; else nothing.

    Flags win over the ``live`` section of the configuration file. ``--taps`` are the backbone's.

    Args:
        own: the flags that ``adapt`` always takes.
        live: those of :data:`losa.flags.LIVE`.

    Raises:
        UsageError: flags of a live training come without --live, or --store with it.
    """
    given = flags.given(live)
    is_live = bool(given.pop("live", False))
    from_file = load_yaml(own["config"]).get("live") if own["config"] is not None else None
    if not is_live and from_file is None:
        for name in given:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(flag, "needs --live", "a store knows how it was extracted")
        return {}
    if own["store"] is not None:
        raise UsageError("--store", "does not go with --live", "give one of them")
    taps = {} if own["taps"] is None else {"taps": own["taps"]}
    section = from_file if isinstance(from_file, dict) else {}
    every = {"taps": "all"} if taps else {}
    return {"live": checked(LiveConfig, {**section, **given, **taps}), **every}


@flags.taking(flags.SCOUT)
def scout(**given: Any) -> None:
    """Look at every block on a sample of the data, and advise which taps to keep."""
    extra = {name: given.pop(name) for name in ("samples", "budget", "out")}
    settings = checked(ExtractConfig, flags.given(given), given["config"])
    from losa.extract.advice import parse_bytes
    from losa.live import scouttext
    from losa.live.scout import ScoutRequest
    from losa.live.scout import scout as run

    if extra["budget"] is not None:
        extra["budget"] = parse_bytes(extra["budget"])
    with console.extract_bar() as progress:
        found = run(ScoutRequest(settings, **flags.given(extra)), progress=progress)
    console.show_table(scouttext.block_rows(found), scouttext.block_columns(found))
    console.show_table(scouttext.set_rows(found), scouttext.SET_COLUMNS)
    for line in scouttext.closing_lines(found):
        console.note(console.clean(line))
    console.show_result(found)
