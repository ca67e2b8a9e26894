# SPDX-License-Identifier: Apache-2.0
"""The application: one operator that finds cases, and one for each step of the bundle."""

import logging
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, ConditionType, Operator, OperatorSpec

from ...errors import named, one_line
from .bundle import Bundle, Case, Step

logger = logging.getLogger(__name__)
PORT = "case"


class CaseLoader(Operator):
    """Emits one case of the input a tick: a study's series, chosen by the rules of the bundle's config."""

    def __init__(self, fragment: Application, *args: Any, cases: list[Case], **kwargs: Any) -> None:
        self.cases = iter(cases)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """One output, the case with its series."""
        spec.output(PORT)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """The next case."""
        op_output.emit(next(self.cases), PORT)


class StepOperator(Operator):
    """One step of the bundle for one case at a time; a case that fails goes no further, and into `failures` with its line."""

    def __init__(self, fragment: Application, *args: Any, step: Step, failures: dict[str, str], **kwargs: Any) -> None:
        self.step, self.failures = step, failures
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """A case in, the same case with more in it out; nobody need listen."""
        spec.input(PORT)
        spec.output(PORT).condition(ConditionType.NONE)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Volumes stay float32 MetaTensors; the SDK's own bundle operator would cast them to uint8."""
        case = op_input.receive(PORT)
        try:
            done = self.step(case)
        except Exception as error:
            self.failures[case.name] = one_line(error)
            logger.error(named(case.name, self.failures[case.name]))
            return
        logger.info(f"case {case.name}: {self.name} done")
        op_output.emit(done, PORT)


class TranslationApp(Application):
    """DICOM in, a derived DICOM series out, for every study of the input."""

    def __init__(self, bundle: Bundle, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cases, self.steps = bundle.cases(), bundle.steps  # here, where an error is still the user's to read
        self.failures: dict[str, str] = {}

    def compose(self) -> None:
        """Loader, then the bundle's steps in a row."""
        last: Operator = CaseLoader(self, CountCondition(self, len(self.cases)), cases=self.cases, name="case_loader")
        for name, step in self.steps.items():
            operator = StepOperator(self, step=step, failures=self.failures, name=name)
            self.add_flow(last, operator)
            last = operator

    @property
    def exit_code(self) -> int:
        """0 when every case was done, 1 when none was, 2 otherwise."""
        if not self.failures:
            return 0
        return 1 if len(self.failures) == len(self.cases) else 2
