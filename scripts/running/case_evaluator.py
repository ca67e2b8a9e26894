# SPDX-License-Identifier: Apache-2.0
"""Runs a folder of cases; a bad one stops nothing but itself."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.engines.utils import default_prepare_batch
from torch.utils.data import Dataset

from ..data.cases import ERROR
from ..data.write_behind import WriteBehind
from ..errors import BadInput, listed, named, one_line, several
from .choosing_inferer import answering
from .ledger import DONE, FAILED, Ledger, input_hash
from .parts import parts_of
from .progress import Progress

logger = logging.getLogger(__name__)


class TolerantDataset(Dataset[dict[str, Any]]):
    """Cases through a transform; one that is refused or cannot be loaded becomes `{case, error}` instead of an exception.


    ledger: leaves out what is finished, as soon as a run begins, and wants to know what was read (`input`).
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Any, ledger: Ledger | None = None) -> None:
        self.data, self.transform, self.ledger = data, transform, ledger
        self.places = list(range(len(data)))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = dict(self.data[self.places[index]])
        if ERROR in case:  # refused before it was read
            return {"case": case["case"], ERROR: case[ERROR]}
        read = {} if self.ledger is None else {"input": input_hash(case)}
        try:
            return {**self.transform(case), **read}
        except Exception as error:
            return {"case": case.get("case", str(index)), ERROR: one_line(error), **read}


class CaseLoader(DataLoader):
    """MONAI's loader; while a batch is used, a thread reads the next, and no more."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        with ThreadPoolExecutor(1, thread_name_prefix="reading") as thread:
            following = thread.submit(next, batches, None)
            while (batch := following.result()) is not None:
                following = thread.submit(next, batches, None)
                yield batch


def _doubts(image: Any) -> list[str]:
    """What the loader doubts, from a batch of one."""
    told = getattr(image, "meta", {}).get("doubts", "[]")
    return json.loads(told if isinstance(told, str) else told[0])


def named_batch(batchdata: Mapping[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    """MONAI's batch, and the case's name for the inferer, which draws other noise for another case."""
    image, label = default_prepare_batch(dict(batchdata), device, non_blocking, **kwargs)
    return image, label, (), {"case": str(batchdata["case"][0])}


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator over a `TolerantDataset` in batches of one; reports per case, and ends with a summary.

    caveat: a line that holds for every case, "" for none: it is said once, and is each case's first doubt.
    A case is written while the next is computed; it is told of when it is written, and all are before the run is over.
    `run` raises SystemExit with 1 when every case failed and with 2 when some did.
    """

    stopped: Callable[[], None] = staticmethod(lambda: None)  # when a run ends before its end; a record sets its own

    def __init__(self, *args: Any, caveat: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **{"prepare_batch": named_batch, **kwargs})
        self.caveats = [caveat] if caveat else []
        self.failures: dict[str, str] = {}
        self.done: list[str] = []
        self.seconds: dict[str, float] = {}
        self.doubts: dict[str, list[str]] = {}
        self.weights: dict[str, str] = {}  # files of specialists, of cases that they answered
        self.written: set[str] = set()
        self.add_event_handler(Events.STARTED, self._warn)  # when the record listens
        self.add_event_handler(Events.EPOCH_COMPLETED, self._settle)  # before the record is written

    def _settle(self) -> None:
        """Wait for what is being written; what could not be is not done."""
        self.behind.settle()
        self.done = [case for case in self.done if case not in self.failures]

    def _warn(self) -> None:
        for line in self.caveats:
            logger.warning(line)

    def _iteration(self, engine: Any, batchdata: Any) -> dict[str, Any]:
        case = str(batchdata["case"][0])
        start = time.monotonic()
        self.progress.next()
        try:
            if ERROR in batchdata:
                raise BadInput(str(batchdata[ERROR][0]))
            self.doubts[case] = [*self.caveats, *_doubts(batchdata["image"])]
            shape, (network, weights) = batchdata["image"].shape, answering(self.inferer, batchdata["image"], self.network)
            self.weights |= {case: weights} if weights else {}
            with self.progress.case(case, shape, parts_of(network, self.inferer, shape)):
                output: dict[str, Any] = super()._iteration(engine, batchdata)
            self.doubts[case] += getattr(self.inferer, "doubts", [])
        except (ValueError, OSError, RuntimeError) as error:
            self.behind.add(case, partial(self._fail, case, error, batchdata))
            return {}
        self.done.append(case)
        self.seconds[case] = time.monotonic() - start
        line = f"case {case}: done in {self.seconds[case]:.1f} s{self.progress.left()}"
        self.behind.add(case, partial(self._written, case, line, batchdata))
        return output

    def _written(self, case: str, line: str, batchdata: Any) -> None:
        self.written.add(case)
        logger.info(line)
        facts = {"doubts": self.doubts[case], **({"weights": self.weights[case]} if case in self.weights else {})}
        self._note(case, DONE, batchdata, seconds=round(self.seconds[case], 2), **facts)

    def _fail(self, case: str, error: Exception, batchdata: Any = None) -> None:
        self.failures[case] = one_line(error)
        logger.error(named(case, self.failures[case]))
        logger.debug("refused here", exc_info=error)
        self._note(case, FAILED, batchdata, error=self.failures[case])

    def _note(self, case: str, outcome: str, batchdata: Any, **facts: Any) -> None:
        if (ledger := getattr(self._dataset(), "ledger", None)) is not None:
            read = {"input": str(batchdata["input"][0])} if batchdata and "input" in batchdata else {}
            ledger.write(case, outcome, {**read, **facts})

    def _dataset(self) -> Any:
        return self.data_loader.dataset  # type: ignore[union-attr]

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run every case that its ledger does not know as finished, then say how many were done.

        Who is stopped finishes what is being written, and leaves the record of what was done.
        """
        self.failures, self.done, self.seconds, self.doubts, self.written = {}, [], {}, {}, set()
        data = self._dataset()
        with getattr(data, "ledger", None) or nullcontext() as ledger:
            if ledger is not None:
                data.places = ledger.unfinished(data.data)
            try:
                with Progress(len(data)) as self.progress, WriteBehind(self._fail) as self.behind:
                    self._run(len(data), global_epoch)
            except (KeyboardInterrupt, SystemExit):
                self.done = [case for case in self.done if case in self.written]
                logger.info(f"stopped: {len(self.done)} of {several(len(data), 'case')} done")
                if ledger is not None:  # else means over some of the cases would take the place of those over all
                    self.stopped()
                raise
            if ledger is not None:
                ledger.end()
        self.done = [case for case in self.done if case not in self.failures]
        before = 0 if ledger is None else len(ledger.record.earlier)
        done = len(self.done) + before
        logger.info(f"{done} of {done + len(self.failures)} cases done{f', {before} of them before' if before else ''}")
        if self.failures:
            where = "the results" if ledger is None else "run.json"
            logger.info(f"failed, as said above and in {where}: {listed(list(self.failures), most=20)}")
            raise SystemExit(2 if done else 1)

    def _run(self, count: int, global_epoch: int) -> None:
        if count:
            self.state.epoch_length = count
            super().run(global_epoch)
            return
        for event in (Events.STARTED, Events.COMPLETED):  # nothing is left to do, and that is recorded
            self.fire_event(event)
