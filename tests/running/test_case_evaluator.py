# SPDX-License-Identifier: Apache-2.0
"""Many cases: reading, computing and writing at the same time, in order, and no more of them in memory than that needs."""

import json
import logging
import threading

import pytest
import torch

from scripts.data.write_behind import WriteBehind, hand_on
from scripts.errors import BadInput
from scripts.running import CaseEvaluator, CaseLoader, RunRecord, TolerantDataset

SOON = 10.0  # seconds in which another thread certainly comes
LINES = "scripts.running.case_evaluator"


class Steps:
    """Remembers which step of which case began and ended, in order; a step may wait for another one."""

    def __init__(self):
        self.seen, self.changed = [], threading.Condition()

    def __call__(self, what):
        with self.changed:
            self.seen.append(what)
            self.changed.notify_all()

    def came(self, what):
        """Whether it is seen, soon."""
        with self.changed:
            return self.changed.wait_for(lambda: what in self.seen, SOON)

    def before(self, what):
        return self.seen[: self.seen.index(what)]


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture
def run(tmp_path, steps):
    """A function (cases, compute, write, read) -> content of run.json and exit code; each is called with a case's number."""

    def run(count, compute=lambda index: None, write=lambda index: None, read=lambda index: None):
        def load(case):
            steps(("read", case["index"]))
            read(case["index"])
            return case

        def infer(inputs, network, case, **kwargs):
            steps(("compute", int(case)))
            compute(int(case))
            return inputs

        def written(index):
            steps(("write", index))
            write(index)
            steps(("written", index))

        def save(data):
            hand_on(data["case"], lambda: written(int(data["index"])))
            return data

        cases = [{"case": str(index), "index": index, "image": torch.zeros(1, 4, 4, 4)} for index in range(count)]
        evaluator = CaseEvaluator(
            device=torch.device("cpu"),
            val_data_loader=CaseLoader(TolerantDataset(cases, load), batch_size=1, num_workers=0),
            network=torch.nn.Identity(),
            inferer=infer,
            postprocessing=save,
            val_handlers=[RunRecord(str(tmp_path / "run.json"), {})],
        )
        code = 0
        try:
            evaluator.run()
        except SystemExit as ended:
            code = ended.code
        return json.loads((tmp_path / "run.json").read_text()), code

    return run


def test_the_next_case_is_read_and_the_last_one_written_while_one_is_computed(run, steps):
    record, code = run(
        4,
        compute=lambda index: index == 3 or steps.came(("read", index + 1)) or pytest.fail("not read meanwhile"),
        write=lambda index: index == 3 or steps.came(("compute", index + 1)) or pytest.fail("not computed meanwhile"),
    )
    assert (code, list(record["cases"])) == (0, ["0", "1", "2", "3"])


def test_at_most_one_case_waits_on_either_side(run, steps):
    slow = threading.Event()
    run(5, write=lambda index: slow.wait(0.05))
    for index in range(5):
        read = {case for what, case in steps.before(("compute", index)) if what == "read"}
        assert index in read and max(read) <= index + 1
        begun = steps.before(("write", index))
        assert index == 0 or ("written", index - 1) in begun
        assert ("compute", index + 2) not in begun


def test_a_case_that_cannot_be_written_has_failed_and_lines_stay_in_order(run, caplog):
    def refuse(index):
        if index in (1, 4):
            raise BadInput("disk: is full; empty it")

    def read(index):
        if index == 2:
            raise RuntimeError("flipped bit")

    with caplog.at_level(logging.INFO, logger=LINES):
        record, code = run(5, write=refuse, read=read)
    assert code == 2
    assert list(record["cases"]) == ["0", "3"]
    full = "disk: is full; empty it"
    assert record["failures"] == {"1": full, "2": "RuntimeError: flipped bit", "4": full}
    told = [record.getMessage() for record in caplog.records if record.name == LINES]
    assert [line.split(":")[0] for line in told[:5]] == [f"case {index}" for index in range(5)]
    assert told[5] == "2 of 5 cases done"
    assert not any("case 1: done" in line or "case 4: done" in line for line in told)


def test_where_nothing_can_be_written_nothing_is_done(run, caplog):
    def refuse(index):
        raise BadInput("disk: is full; empty it")

    with caplog.at_level(logging.INFO, logger=LINES):
        record, code = run(3, write=refuse)
    assert (code, record["cases"], sorted(record["failures"])) == (1, {}, ["0", "1", "2"])
    assert "0 of 3 cases done" in caplog.text


def test_what_ends_a_run_lets_a_file_be_finished_and_begins_no_other(steps):
    go_on = threading.Event()

    def first():
        steps("first")
        go_on.wait(SOON)
        steps("finished")

    with pytest.raises(SystemExit), WriteBehind(lambda case, error: None):
        hand_on("a", first)
        hand_on("a", lambda: steps("second"))
        assert steps.came("first")
        threading.Timer(0.1, go_on.set).start()
        raise SystemExit(143)
    assert steps.seen == ["first", "finished"]
    hand_on("b", lambda: steps("at once"))
    assert steps.seen[-1] == "at once"
