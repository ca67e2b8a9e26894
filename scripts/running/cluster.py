# SPDX-License-Identifier: Apache-2.0
"""A folder of cases over several processes or machines: Dask carries cases to workers, the ledger stays with who asked."""

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser

from ..errors import BadInput, named, one_line, several
from ..files import temporary_folder
from ..inferers.ladder import free_gb
from .case_evaluator import CaseEvaluator
from .lean import is_lean
from .ledger import FAILED, Ledger
from .notes import Answer, recipe_of
from .worker import restore_case
from .workflow import PACKAGE

logger = logging.getLogger(__name__)
LOCAL, SLURM = "local", "slurm"
PATIENCE = {LOCAL: 120.0, SLURM: 3600.0}  # seconds without any worker; a queue takes its time
OF_OTHERS = 60.0  # likewise, of a scheduler that somebody else started
ANSWER = 10.0  # seconds in which a scheduler answers
MOST_DEATHS = 4  # workers that a case may take along before it is given up
LOOK = 1.0  # seconds between looks for workers that came or went
REPLACED = 10.0  # seconds between looks for those that are to be started again


class _Errand(NamedTuple):
    """A case, and the address of the worker that has it."""

    entry: Mapping[str, Any]
    worker: str

    @property
    def case(self) -> str:
        """Its name."""
        return str(self.entry["case"])


class _Errands:
    """Cases on their way: a worker has one at a time, and that of one that is gone goes to another.

    Dask would send it on by itself, but never when all workers were gone at once.
    """

    def __init__(self, client: Any, restore: Callable[..., Any], entries: Sequence[Mapping[str, Any]]) -> None:
        self.client, self.restore = client, restore
        self.waiting, self.deaths = deque(entries), Counter[str]()
        self.under_way: dict[Any, _Errand] = {}  # by Dask's future

    def are_left(self) -> bool:
        """Whether any case has not ended."""
        return bool(self.waiting or self.under_way)

    def send(self, workers: set[str]) -> None:
        """A case to each worker that has none."""
        for worker in sorted(workers - {errand.worker for errand in self.under_way.values()})[: len(self.waiting)]:
            errand = _Errand(self.waiting.popleft(), worker)
            future = self.client.submit(self.restore, errand.entry, workers=[worker], pure=False)
            self.under_way[future] = errand

    def given_up(self, workers: set[str]) -> Iterator[tuple[str, str]]:
        """Take cases back whose workers are not among these any more; those that took too many along, and why they failed."""
        for future in [one for one, errand in self.under_way.items() if errand.worker not in workers and not one.done()]:
            yield from self.lost(self.under_way.pop(future), future)

    def lost(self, errand: _Errand, future: Any) -> Iterator[tuple[str, str]]:
        """Take a case back whose worker is gone, with its answer perhaps; it, and why it failed, after too many."""
        future.cancel()
        self.deaths[errand.case] += 1
        if (deaths := self.deaths[errand.case]) < MOST_DEATHS:
            logger.warning(f"worker {errand.worker} is gone; case {errand.case} goes to another")
            self.waiting.appendleft(errand.entry)
        else:
            yield errand.case, f"{deaths} workers that were at it are gone, as one that has too little memory; try it alone"

    def ended(self) -> Iterator[tuple[_Errand, Any]]:
        """Errands that ended, with Dask's futures; where there are none, after a moment."""
        from distributed import wait

        if not self.under_way:
            time.sleep(LOOK)
        with suppress(TimeoutError):
            wait(list(self.under_way), timeout=LOOK, return_when="FIRST_COMPLETED")
        for future in [one for one in self.under_way if one.done()]:
            yield self.under_way.pop(future), future


class Cluster:
    """Where cases are computed.

    where: "local" (processes of this machine), "slurm" (jobs as Dask-Jobqueue's configuration describes them) or the address of
    a Dask scheduler, tcp://host:8786; workers: how many the first two start, by default one a GPU, else one.
    Raises BadInput where Dask is not installed, and for what is none of these.
    """

    def __init__(self, where: str, workers: int | None = None) -> None:
        if where not in PATIENCE and "://" not in where:
            raise BadInput(f"--cluster {where}: is neither {LOCAL}, {SLURM} nor an address such as tcp://host:8786")
        if workers is not None and (workers < 1 or where not in PATIENCE):
            fact = "at least 1 is needed" if workers < 1 else f"the scheduler at {where} has its own"
            raise BadInput(f"--workers {workers}: {fact}; leave it out")
        missing = [name for name in ("distributed", "dask_jobqueue") if find_spec(name) is None]
        if missing and (where == SLURM or "distributed" in missing):
            raise BadInput(f'--cluster {where}: {missing[0]} is not installed; pip install "score-fusion[cluster]"')
        self.where = where
        self.patience = PATIENCE.get(where, OF_OTHERS)
        self.gpus = _gpus() if where == LOCAL else []
        self.workers = workers or len(self.gpus) or 1
        self.at_once = 1  # cases that are computed at the same time

    def take_over(self, config: ConfigParser) -> None:
        """Change a workflow, before anything of it is built, so that workers compute its cases."""
        self._check_shared(config["dataset_dir"])
        for key in ("dataset_dir", "output_dir", "ckpt_path"):
            config[key] = _absolute(config[key])
        if self.where == LOCAL and not self.gpus and config["memory_gb"] is None and (free := free_gb(torch.device("cpu"))):
            config["memory_gb"] = round(free / self.workers, 1)
        self.recipe = recipe_of(config.get())
        config["device"] = "cpu"  # of this process, which computes nothing
        config["evaluator"]["_target_"] = f"{PACKAGE}.running.cluster.ClusterEvaluator"
        config["evaluator"]["cluster"] = self

    def answers(self, entries: Sequence[Mapping[str, Any]]) -> Generator[tuple[str, Answer | str], None, None]:
        """Of entries of `find_cases`, as they come, the case and a worker's answer, or why there is none.

        Raises BadInput when no worker is left.
        """
        with self._client() as client:
            errands = _Errands(client, partial(restore_case, self.recipe, lean=is_lean()), entries)
            since = replaced = time.monotonic()
            while errands.are_left():
                workers = set(client.scheduler_info()["workers"])
                self.at_once = max(self.at_once, len(workers))
                since = time.monotonic() if workers else since
                if len(workers) < self.workers and time.monotonic() - replaced > REPLACED:
                    self._replace(client.cluster)
                    replaced = time.monotonic()
                if time.monotonic() - since > self.patience:
                    raise BadInput(f"cluster {self.where}: no worker for {self.patience:.0f} s; see whether any are started")
                yield from errands.given_up(workers)
                errands.send(workers)
                for errand, future in errands.ended():
                    if (answer := self._taken(future, errand.worker, client)) is not None:
                        yield errand.case, answer
                    else:
                        yield from errands.lost(errand, future)

    def _replace(self, cluster: Any) -> None:
        """Start workers, or jobs of a queue, that Dask has given up, as one that took 15 s to come back to a busy machine.

        Those that wait or start are left alone. cluster: of a client; None where it is not ours.
        """
        if self.where in PATIENCE and cluster is not None:
            cluster.scale(self.workers)

    def _taken(self, future: Any, worker: str, client: Any) -> Answer | None:
        """What a worker has ready; None if it is gone before it was asked for: Dask would wait for it to come back."""
        while True:
            try:
                return self._asked(future)
            except TimeoutError:
                if worker not in client.scheduler_info()["workers"]:
                    return None

    def _asked(self, future: Any) -> Answer:
        error = future.exception(timeout=LOOK)
        if isinstance(error, ImportError | OSError):
            fact = f"a worker cannot begin ({one_line(error)})"
            raise BadInput(f"cluster {self.where}: {fact}; install this version there") from error
        if error is not None:
            raise error
        return Answer(*future.result(timeout=LOOK))

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A connection to the cluster, which is started where that is ours to do, and stopped in the end."""
        from distributed import Client

        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it, we say
        with ExitStack() as stack:
            try:
                place = self._started(stack)
                client = stack.enter_context(Client(place, timeout=ANSWER))
            except OSError as error:
                fact = "no Dask scheduler answers there; start one (docs/scaling.md), or correct the address"
                raise BadInput(f"--cluster {self.where}: {fact}") from error
            asked = f" of {several(self.workers, 'worker')}" if self.where in PATIENCE else ""
            logger.info(f"cluster {self.where}{asked}, dashboard {client.dashboard_link}")
            try:
                yield client
            except (OSError, CancelledError) as error:
                raise BadInput(f"cluster {self.where}: its scheduler is gone; the same command goes on") from error

    def _started(self, stack: ExitStack) -> Any:
        """What a client connects to."""
        if self.where == SLURM:
            return stack.enter_context(self._slurm())
        return self.where if self.where != LOCAL else stack.enter_context(self._local(stack))

    def _slurm(self) -> Any:
        from dask_jobqueue import SLURMCluster

        try:
            # It is for us to see that memory is enough, and a worker that pauses would do no more.
            cluster = SLURMCluster(worker_extra_args=["--memory-limit", "0"])
        except (ValueError, TypeError) as error:
            fact = f"{str(error).splitlines()[0].partition(',')[0]}; in ~/.config/dask/jobqueue.yaml (docs/scaling.md#slurm)"
            raise BadInput(f"--cluster {SLURM}: {fact}") from error
        cluster.scale(self.workers)
        return cluster

    def _local(self, stack: ExitStack) -> Any:
        from distributed import Nanny, Scheduler, SpecCluster
        from distributed.security import Security

        host = {"host": "127.0.0.1", "protocol": "tls://", "security": Security.temporary()}  # else others may send it code
        folder = stack.enter_context(temporary_folder())
        threads = max(1, torch.get_num_threads() // self.workers)
        common = {
            **host, "nthreads": threads, "memory_limit": 0, "local_directory": folder, "silence_logs": logging.CRITICAL,
            "preload": [f"{PACKAGE}.running.worker"],
        }  # fmt: skip
        return SpecCluster(
            scheduler={"cls": Scheduler, "options": {**host, "dashboard_address": "127.0.0.1:0"}},
            workers={n: {"cls": Nanny, "options": {**common, "env": self._environment(n)}} for n in range(self.workers)},
            security=host["security"],
        )

    def _environment(self, number: int) -> dict[str, str]:
        """Of a local worker, each of which has a GPU of its own where there are as many."""
        return {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]} if self.gpus else {}

    def _check_shared(self, dataset_dir: str) -> None:
        if self.where != LOCAL and dataset_dir.lower().endswith(".zip"):
            raise BadInput(f"{dataset_dir}: other machines do not see what is unpacked here; unzip it where all see it")


class ClusterEvaluator(CaseEvaluator):
    """A `CaseEvaluator` that has its cases computed by a cluster, and keeps their ledger and record."""

    def __init__(self, *args: Any, cluster: Cluster, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cluster = cluster

    def _run(self, count: int, global_epoch: int) -> None:
        data = self._dataset()
        self.fire_event(Events.STARTED)
        if count:
            try:
                with closing(self.cluster.answers([data.data[place] for place in data.places])) as answers:
                    self._take_all(answers, data.ledger)
            except BadInput:
                self.stopped()
                raise
            finally:
                data.ledger.clean(data.data)
        self.done.sort()
        self.fire_event(Events.COMPLETED)

    def _take_all(self, answers: Iterator[tuple[str, Answer | str]], ledger: Ledger) -> None:
        for case, answer in answers:
            self.progress.ended(self.cluster.at_once)
            if isinstance(answer, str):
                self._fail(case, BadInput(answer))
            else:
                self._take(case, answer, ledger)

    def _take(self, case: str, answer: Answer, ledger: Ledger) -> None:
        line = answer.line
        if line["identity"] != ledger.identity():
            fact = f"has other weights or another version ({line['versions']['bundle']}) than this machine"
            raise BadInput(f"worker on {line['host']}: {fact}; install the same there")
        for warning in answer.warnings:
            logger.warning(warning)
        ledger.record.device = line["device"]
        ledger.record.peak_gb = max(ledger.record.peak_gb, line["peak_memory_gb"])  # this process computes nothing
        if line["numbers"]:  # a worker that could read none of its cases so far knows of none
            ledger.record.inferer.numbers = line["numbers"]
        if line["outcome"] == FAILED:
            self.failures[case] = line["error"]
            logger.error(named(case, line["error"]))
        else:
            self.seconds[case], self.doubts[case] = line["seconds"], line["doubts"]
            self.weights |= {case: line["weights"]} if "weights" in line else {}
            self.done.append(case)
            self.written.add(case)
            logger.info(f"case {case}: done in {line['seconds']:.1f} s{self.progress.left()}")
        ledger.add(line)


def _gpus() -> list[str]:
    """Names of this machine's GPUs that may be used, as CUDA_VISIBLE_DEVICES has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def _absolute(path: Any) -> Any:
    """As another process finds it; what a config computes stays."""
    return str(Path(path).expanduser().absolute()) if isinstance(path, str) and not path.startswith(("$", "@")) else path
