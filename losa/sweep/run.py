"""A sweep from its file to its best setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losa.adapt.command import WINNER, adapt_command
from losa.config import SweepConfig, checked, load_yaml
from losa.errors import InputError, SkippedError, UsageError
from losa.store.files import write_atomic
from losa.store.opening import open_source
from losa.sweep.asking import Suggested
from losa.sweep.choosing import Setting, ranked, table_bytes
from losa.sweep.folder import IDENTITY, SweepFolder, read_recorded, recorded, results_of
from losa.sweep.processes import Processes, visible_devices
from losa.sweep.results import TrialResult
from losa.sweep.schedule import All, Halved, Schedule
from losa.sweep.strategy import Strategy, parse_strategy
from losa.sweep.trials import TrialMaker, base_config, check_count
from losa.sweep.worker import Member, Tell, Worker


def read_sweep(
    flags: Mapping[str, Any], file: Path | None
) -> tuple[SweepConfig, dict[str, Any], Path]:
    """Where a sweep lies and how it is run, its sections, and the file that gives them.

    Without a file it is the one that was begun in ``out``.

    Raises:
        InputError: the file is unreadable.
        StoreError: there is neither a file nor a sweep.
        UsageError: a flag cannot be meant.
    """
    if file is None:
        root = checked(SweepConfig, {"out": flags.get("out")}).out
        values, file = read_recorded(root), root / "sweep.yaml"
    else:
        values = load_yaml(file)
    own = {name: values.pop(name) for name in list(values) if name in SweepConfig.model_fields}
    try:
        checked(SweepConfig, own)
    except UsageError as error:
        raise InputError(file, error.what, "mend the file") from None
    return checked(SweepConfig, {**own, **flags}), values, file


class Sweep:
    """One sweep, opened: what it tries, on which store, and the folder it lies in."""

    def __init__(
        self,
        settings: SweepConfig,
        sections: Mapping[str, Any],
        file: Path,
        *,
        is_meant: bool = False,
    ) -> None:
        self.settings = settings
        sections = {name: value for name, value in sections.items() if name not in IDENTITY}
        strategy = parse_strategy(sections, file)
        check_count(strategy, file, is_meant=is_meant)
        base = base_config(strategy, settings.store)
        self.store = open_source(settings.store, regime=base.read)
        self.folder = SweepFolder(settings.out)
        maker = TrialMaker(self.store, base, self.folder.trials)
        self.schedule = _schedule(strategy, maker, self.folder, file)
        self.device = base.device
        self.folder.begin_or_join(
            recorded(sections, base, self.store.store_id, maker.targets_digest)
        )

    def train(self, tell: Tell | None = None, member: Member | None = None) -> None:
        """Train all that is left, in this process or in several."""
        tell = tell or (lambda _, __: None)
        if self.settings.workers > 1 and member is None:
            out, store = str(self.settings.out), str(self.settings.store)
            words = ["sweep", "--out", out, "--store", store, "--workers", "1", "--yes"]
            devices = visible_devices(self.device)

            def look() -> int:
                done = len(self.results())
                tell(float(done), self.schedule.total)
                return done

            Processes(words, self.settings.workers, devices).run(look)
        else:
            member = member or Member()
            Worker(self.folder, self.schedule, self.store, member=member, tell=tell).run()

    def results(self) -> list[TrialResult]:
        """The results that are there."""
        trials = {trial.digest: trial for trial in self.schedule.trials()}
        return results_of(self.folder, trials.values())

    def conclude(self) -> dict[str, Any]:
        """Write the table, choose on val, and say it all in plain JSON values."""
        results = self.results()
        write_atomic(self.folder.table, table_bytes(results))
        counts = {
            status: sum(result.status == status for result in results)
            for status in ("complete", "stopped", "failed")
        }
        settings = ranked(results)
        return {
            "sweep": str(self.folder.root),
            "store_id": self.store.store_id,
            "trials": len(results),
            **counts,
            "settings": len(settings),
            "best": self._best(settings[0]) if settings else None,
            "results": str(self.folder.table),
        }

    def _best(self, setting: Setting) -> dict[str, Any]:
        """The best setting as plain JSON values."""
        best, root = setting.best, self.folder.root
        run = self.folder.trials / best.digest
        return {
            "digest": best.digest,
            "seeds": sorted(result.config["seed"] for result in setting.results),
            "val": setting.summary("val"),
            "test": setting.summary("test"),
            "parameters": best.parameters,
            "run": str(run),
            "command": adapt_command(best.config, run, root / WINNER),
        }


def check_failures(result: Mapping[str, Any]) -> None:
    """Say that trials failed, once everything is written.

    Raises:
        SkippedError: some did.
    """
    if result["failed"]:
        what = f"{result['failed']} of {result['trials']} trials failed"
        raise SkippedError(result["sweep"], what, f"see the reasons in {result['results']}")


def _schedule(strategy: Strategy, maker: TrialMaker, folder: SweepFolder, file: Path) -> Schedule:
    """The trials of a strategy.

    Raises:
        InputError: a setting cannot be trained on the store, or no trial gets beyond a rung.
        UsageError: Optuna is asked for and not installed.
    """
    if strategy.optuna is not None:
        return Suggested(folder, maker, strategy.optuna)
    trials = maker.all_of(strategy.settings(), file)
    if strategy.halving is None:
        return All(folder, trials)
    longest = max(trial.config.epochs for trial in trials)
    if strategy.halving.rungs[-1] >= longest:
        what = f"halving.rungs ends at {strategy.halving.rungs[-1]}, not before epochs, {longest}"
        raise InputError(file, what, "mend the file")
    return Halved(folder, trials, strategy.halving, maker.store.store_id)
