"""Optuna behind a sweep's own files: it is asked for settings and told of results, no more.

The study lives in memory and is built from the files by every process, so that nothing of it can be
lost, and a killed process leaves no trial behind that runs for ever.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Final

from losa.errors import StoreError, UsageError
from losa.sweep.folder import SweepFolder
from losa.sweep.schedule import Pending
from losa.sweep.space import EITHER, Choice, Range, Space
from losa.sweep.strategy import Asked
from losa.sweep.trials import SweepTrial, TrialMaker

NO_OPTUNA: Final = "pip install 'losa[sweep]', or use random with the same space"


def optuna_module() -> Any:
    """Optuna, silent.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError("optuna", "is not installed", NO_OPTUNA) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


class Suggested:
    """Trials that Optuna suggests, a few ahead of what is known."""

    def __init__(self, folder: SweepFolder, maker: TrialMaker, asked: Asked) -> None:
        self._optuna = optuna_module()
        self._folder = folder
        self._maker = maker
        self._asked = asked
        self._trials: list[SweepTrial] = []

    @property
    def total(self) -> int:
        """How many trials there will be."""
        return self._asked.trials

    def trials(self) -> Sequence[SweepTrial]:
        """Those suggested by now; of equal ones each counts."""
        while len(self._trials) < self.total:
            found = self._folder.suggestion(len(self._trials))
            if found is None:
                break
            self._trials.append(self._made(len(self._trials), found))
        return self._trials

    def pending(self) -> list[Pending]:
        """Those without a result, after as many more were asked for as may be open at a time."""
        is_open = [one for one in self.trials() if self._folder.result(one.digest) is None]
        while len(self.trials()) < self.total and len(is_open) < self._asked.together:
            number = len(self.trials())
            self._folder.set_suggestion(number, self._suggest(number))
            new = self.trials()[number]
            if self._folder.result(new.digest) is None:
                is_open.append(new)
        # Of equal ones the first, which all processes know it by.
        first = {one.digest: one for one in reversed(is_open)}
        return [Pending(trial) for trial in sorted(first.values(), key=lambda one: one.number)]

    def _made(self, number: int, found: dict[str, Any]) -> SweepTrial:
        try:
            return self._maker.make(number, found["setting"])
        except KeyError:
            path = self._folder.root / "asked"
            what = f"holds a damaged suggestion {number}"
            raise StoreError(path, what, "give another --out") from None

    def _suggest(self, number: int) -> dict[str, Any]:
        """Ask for the n-th setting, with all that is known told."""
        study = self._study(number)
        trial = study.ask()

        def value(name: str, drawn: Range | Choice) -> Any:
            return self._drawn(trial, name, drawn)

        def branch(place: str, count: int) -> int:
            return int(trial.suggest_categorical(place, list(range(count))))

        setting = self._asked.space.pick(value, branch)
        return {"setting": setting, "params": dict(trial.params)}

    def _drawn(self, trial: Any, name: str, drawn: Range | Choice) -> Any:
        if isinstance(drawn, Choice):
            # By place: Optuna takes plain values alone, and compares what it has seen by them.
            return drawn.values[trial.suggest_categorical(name, list(range(len(drawn.values))))]
        if drawn.is_whole:
            return trial.suggest_int(name, int(drawn.low), int(drawn.high), log=drawn.is_log)
        return trial.suggest_float(name, drawn.low, drawn.high, log=drawn.is_log)

    def _study(self, number: int) -> Any:
        optuna = self._optuna
        digest = hashlib.sha256(f"{self._asked.seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4])
        # Of what runs it is assumed that it turns out badly, so that the next is somewhere else.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for known in range(number):
            found = self._folder.suggestion(known)
            if found is not None:
                study.add_trial(self._told(found, self._trials[known].digest))
        return study

    def _told(self, found: dict[str, Any], digest: str) -> Any:
        """A suggestion and what is known of it, as Optuna would have it."""
        states = self._optuna.trial.TrialState
        result = self._folder.result(digest)
        is_complete = result is not None and result.status == "complete"
        value = result.standing[0] if result is not None and is_complete else None
        state = states.COMPLETE if is_complete else states.FAIL
        if result is None:
            state = states.RUNNING
        params = found["params"]
        distributions = {
            name: one for name, one in self._distributions(self._asked.space).items()
            if name in params
        }  # fmt: skip
        return self._optuna.trial.create_trial(
            state=state, params=params, distributions=distributions, value=value
        )

    def _distributions(self, space: Space, below: str = "") -> dict[str, Any]:
        made = self._optuna.distributions
        found: dict[str, Any] = {}
        for name, drawn in space.ranges.items():
            found[below + name] = self._distribution(drawn)
        if space.either:
            found[below + EITHER] = made.CategoricalDistribution(list(range(len(space.either))))
        for number, branch in enumerate(space.either):
            found |= self._distributions(branch, f"{below}{EITHER}.{number}.")
        return found

    def _distribution(self, drawn: Range | Choice) -> Any:
        made = self._optuna.distributions
        if isinstance(drawn, Choice):
            return made.CategoricalDistribution(list(range(len(drawn.values))))
        if drawn.is_whole:
            return made.IntDistribution(int(drawn.low), int(drawn.high), log=drawn.is_log)
        return made.FloatDistribution(drawn.low, drawn.high, log=drawn.is_log)
