# SPDX-License-Identifier: Apache-2.0
"""Runs a folder of cases; a bad one stops nothing but itself."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.engines.utils import default_prepare_batch
from torch.utils.data import Dataset

from ..data.cases import ERROR
from ..data.write_behind import WriteBehind
from ..errors import BadInput, named, one_line
from .parts import parts_of
from .progress import Progress

logger = logging.getLogger(__name__)


class TolerantDataset(Dataset[dict[str, Any]]):
    """Cases through a transform; one that is refused or cannot be loaded becomes `{case, error}` instead of an exception."""

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Any) -> None:
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = dict(self.data[index])
        if ERROR in case:  # refused before it was read
            return {"case": case["case"], ERROR: case[ERROR]}
        try:
            return dict(self.transform(case))
        except Exception as error:
            return {"case": case.get("case", str(index)), ERROR: one_line(error)}


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

    def __init__(self, *args: Any, caveat: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **{"prepare_batch": named_batch, **kwargs})
        self.caveats = [caveat] if caveat else []
        self.failures: dict[str, str] = {}
        self.done: list[str] = []
        self.seconds: dict[str, float] = {}
        self.doubts: dict[str, list[str]] = {}
        self.add_event_handler(Events.STARTED, self._warn)  # when the record listens
        self.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.behind.settle())  # before the record is written

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
            shape = batchdata["image"].shape
            with self.progress.case(case, shape, parts_of(self.network, self.inferer, shape)):
                output: dict[str, Any] = super()._iteration(engine, batchdata)
        except (ValueError, OSError, RuntimeError) as error:
            self.behind.add(case, partial(self._fail, case, error))
            return {}
        self.done.append(case)
        self.seconds[case] = time.monotonic() - start
        line = f"case {case}: done in {self.seconds[case]:.1f} s{self.progress.left()}"
        self.behind.add(case, partial(logger.info, line))
        return output

    def _fail(self, case: str, error: Exception) -> None:
        self.failures[case] = one_line(error)
        if case in self.done:  # it could not be written
            self.done.remove(case)
        logger.error(named(case, self.failures[case]))

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run every case, then say how many were done."""
        self.failures, self.done, self.seconds, self.doubts = {}, [], {}, {}
        count = len(self.data_loader.dataset)  # type: ignore[union-attr, arg-type]
        with Progress(count) as self.progress, WriteBehind(self._fail) as self.behind:
            super().run(global_epoch)
        logger.info(f"{len(self.done)} of {len(self.done) + len(self.failures)} cases done")
        for case, line in self.failures.items():
            logger.info(f"  failed: {named(case, line)}")
        if self.failures:
            raise SystemExit(2 if self.done else 1)
