"""Several processes that write one store: which of them this one is, and how it shares the work.

Nothing is said between them. An environment, of torchrun or Slurm, tells each its number; whose a
shard is follows from that number, and from then on claims and commit records decide.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from losa.config import ExtractConfig
from losa.errors import StoppedError, UsageError
from losa.interrupt import StopRequest
from losa.store import StoreWriter
from losa.store.claims import ShardTask

START_SECONDS: Final = 300.0
"""How long the other processes wait for the first one to begin the store."""

RESTARTS: Final = 3
"""How often torchrun starts all processes again after one of them has failed."""


BEFORE: Final = "before it wrote a row"
SEALING: Final = "while it sealed the store"
EXTENDING: Final = "while it put an extension in the place of its store"
"""How far a process was that was told to end where nothing is to be finished before."""


@dataclass(frozen=True, slots=True)
class Place:
    """A process's place among those that write one store.

    ``local`` is its number on its machine where the environment tells, and ``beside`` how many
    there are on it.
    """

    number: int = 0
    count: int = 1
    local: int | None = None
    beside: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that begins the store, shows bars, and prints the result."""
        return self.number == 0


ALONE: Final = Place()


def place_from_environment(environment: Mapping[str, str] | None = None) -> Place:
    """This process's place, as torchrun, a step of Slurm, or an array of Slurm tells it.

    An array whose tasks are steps of several processes counts them all.

    Raises:
        UsageError: a variable is not a number, or out of range.

    Example:
        >>> place_from_environment({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}).number
        3
        >>> place_from_environment({})
        Place(number=0, count=1, local=None, beside=1)
    """
    variables = _Variables(os.environ if environment is None else environment)
    if variables.has("RANK") or variables.has("WORLD_SIZE"):
        number, count = variables.place("RANK", "WORLD_SIZE")
        local, beside = variables.local("LOCAL_RANK"), variables.whole("LOCAL_WORLD_SIZE", 1, 1)
        return Place(number, count, local, beside)
    step, steps, local = 0, 1, None
    if variables.has("SLURM_PROCID") and variables.has("SLURM_NTASKS"):
        step, steps = variables.place("SLURM_PROCID", "SLURM_NTASKS")
        local = variables.local("SLURM_LOCALID") if steps > 1 else None
    task, tasks = variables.array()
    # Slurm gives each process the cores that are its own, so there is nothing to share out.
    return Place(task * steps + step, tasks * steps, local)


class _Variables:
    """The whole numbers of an environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def has(self, name: str) -> bool:
        return name in self._environment

    def whole(self, name: str, default: int | None = None, least: int = 0) -> int:
        text = self._environment.get(name)
        if text is None and default is not None:
            return default
        if text is None or not (text.isascii() and text.isdigit()) or int(text) < least:
            what = "is missing" if text is None else f"{text!r} is no number from {least} on"
            raise UsageError(name, what, "start all processes in one way, or unset it")
        return int(text)

    def place(self, number_name: str, count_name: str) -> tuple[int, int]:
        """The number of a process, and how many there are."""
        number, count = self.whole(number_name), self.whole(count_name, least=1)
        if number >= count:
            what = f"{number} is not below {count_name}={count}"
            raise UsageError(number_name, what, "number processes from 0")
        return number, count

    def local(self, name: str) -> int | None:
        return self.whole(name) if self.has(name) else None

    def array(self) -> tuple[int, int]:
        """The number of an array's task, counted from 0 in steps of 1, and how many there are."""
        names = [f"SLURM_ARRAY_TASK_{word}" for word in ("ID", "COUNT", "MIN", "STEP")]
        if not self.has(names[0]):
            return 0, 1
        task, count = self.whole(names[0]), self.whole(names[1], least=1)
        first, step = self.whole(names[2], 0), self.whole(names[3], 1, 1)
        number, rest = divmod(task - first, step)
        if rest or not 0 <= number < count:
            what = f"{task} is none of {count} tasks from {first} in steps of {step}"
            raise UsageError(names[0], what, "give --array=FIRST-LAST:STEP")
        return number, count


def fitted_to(place: Place, config: ExtractConfig) -> ExtractConfig:
    """A configuration whose ``auto`` means this process's device and its part of the cores.

    Raises:
        UsageError: a store that several processes write is to be replaced.
    """
    if place.count > 1 and config.overwrite:
        what = f"does not go with {place.count} processes, of which each would replace the store"
        raise UsageError("--overwrite", what, "move the store away first")
    changes: dict[str, object] = {}
    if config.device == "auto" and place.local is not None:
        changes["device"] = own_device(place.local)
    if config.num_workers == "auto" and place.beside > 1:
        changes["num_workers"] = max(1, len(os.sched_getaffinity(0)) // (2 * place.beside))
    return config.model_copy(update=changes)


def own_device(local: int) -> str:
    """The CUDA device of one of several processes of a machine, made the current one, or ``auto``.

    Where Slurm shows each process one device alone, that is its own whatever its number.

    Raises:
        UsageError: there are more processes than devices.
    """
    import torch

    if not torch.cuda.is_available():
        return "auto"
    devices = torch.cuda.device_count()
    if devices > 1 and local >= devices:
        what = f"process {local} of this machine has no device: there are {devices}"
        raise UsageError("LOCAL_RANK", what, "start one process a device, or give --device")
    index = local if devices > 1 else 0
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def wait_for_first(path: Path, place: Place, sleep: Callable[[float], None] = time.sleep) -> None:
    """Let the first process begin the store, unless it does not for five minutes.

    All would compute the same calibration, and all but one for nothing.
    """
    waited = 0.0
    while not (place.is_first or path.exists()) and waited < START_SECONDS:
        sleep(0.5)
        waited += 0.5


class Share:
    """One process's share in writing a store: what it takes, and when it leaves.

    Args:
        place: its place among the others.
        stop: whether it was asked to end.
        grace_seconds: how long the shard at hand may take from then on.
        clock: the time that a shard's pace is measured by, in seconds.
    """

    def __init__(
        self,
        place: Place = ALONE,
        stop: StopRequest | None = None,
        grace_seconds: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._stop = stop or StopRequest()
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._began = 0.0

    @property
    def processes(self) -> int:
        """How many share in it."""
        return self._place.count

    def at_once(self, path: Path, when: str) -> AbstractContextManager[None]:
        """A block that a request to end ends at once; see :meth:`StopRequest.at_once`."""
        return self._stop.at_once(path, when, self._todo)

    def tasks(self, writer: StoreWriter) -> Iterator[ShardTask]:
        """Shards for this process, each claimed; no more of them once it was asked to end."""
        for task in writer.claimed(self._place.number, self._place.count):
            yield task
            if self._stop.is_set:
                return

    def ends_before(self, writer: StoreWriter, task: ShardTask, row: int) -> bool:
        """Whether this process, which was asked to end, shall do so before a row of a shard.

        Before a new shard it does. A shard at hand is finished if the grace lasts so long at the
        pace it had so far, and is dropped if not.

        Raises:
            StoppedError: the shard at hand is dropped.
        """
        if row == task.first:
            self._began = self._clock()
            return self._stop.is_set
        if self._stop.is_set and not self._is_in_time(task, row):
            raise self.stopped(writer)
        return False

    def wait(self, writer: StoreWriter, look: Callable[[], None] = lambda: None) -> bool:
        """Wait while others write all that is missing; say whether a shard has come free.

        Raises:
            StoppedError: this process was asked to end before all was written.
        """

        def check() -> None:
            if self._stop.is_set:
                raise self.stopped(writer)
            look()

        is_missing = writer.wait_for_others(check)
        if is_missing:
            check()
        return is_missing

    @property
    def _todo(self) -> str:
        """What is to be done then; nothing: the command itself is the answer."""
        return "" if self._place.count == 1 else "start the same processes again to go on"

    def _is_in_time(self, task: ShardTask, row: int) -> bool:
        pace = (self._clock() - self._began) / (row - task.first)
        return pace * (task.stop - row) <= self._grace_seconds - self._stop.waited_seconds

    def stopped(self, writer: StoreWriter) -> StoppedError:
        """What a process that was asked to end says: who asked, and how far the store is."""
        missing = sum(task.rows for task in writer.tasks())
        total = sum(split.rows for split in writer.plan.splits.values())
        how = "interrupted" if self._stop.is_interrupt else f"told to end ({self._stop.name})"
        return StoppedError(
            writer.path,
            f"{how} with {total - missing} of {total} rows done",
            self._todo,
            is_interrupt=self._stop.is_interrupt,
        )


def start_processes(devices: int, device: str, arguments: Sequence[str]) -> NoReturn:
    """Become torchrun, with a process for each of so many CUDA devices of this machine.

    Raises:
        UsageError: there are not so many, a ``device`` is asked for, or this is one of several
            processes already.
    """
    import torch

    if device != "auto":
        raise UsageError("--gpus", "does not go with --device", "each process has its own")

    if "RANK" in os.environ:
        what = "this is one of several processes already"
        raise UsageError("--gpus", what, "leave it out, and let torchrun start them")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not found:
        todo = f"torchrun --standalone --nproc-per-node {devices} -m losa extract ..."
        raise UsageError(
            "--gpus", "torch sees no CUDA device", f"on CPUs start processes by {todo}"
        )
    if not 1 <= devices <= found:
        raise UsageError("--gpus", f"{devices} of {found} devices", f"give 1 to {found}")
    os.execv(sys.executable, torchrun_command(devices, arguments))  # noqa: S606 -- on purpose


def torchrun_command(processes: int, arguments: Sequence[str]) -> list[str]:
    """How torchrun is started for the command of these arguments, but for its ``--gpus``.

    Example:
        >>> torchrun_command(2, ["extract", "--gpus", "2", "--model", "dinov2_s"])[-4:]
        ['losa', 'extract', '--model', 'dinov2_s']
    """
    kept, is_value = [], False
    for word in arguments:
        if not is_value and word != "--gpus" and not word.startswith("--gpus="):
            kept.append(word)
        is_value = word == "--gpus" and not is_value
    options = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(RESTARTS)]
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "losa", *kept]
