# SPDX-License-Identifier: Apache-2.0
"""Series of real scanners: what the doctor says of a folder is what a run would do. Skipped where there are none."""

from contextlib import suppress

import pytest
from surroundings import SCANS, needs_scans

from scripts.data import LoadVolumesd, find_cases
from scripts.data.doctor import doctor
from scripts.errors import BadInput
from scripts.measurement import AsScanned, BlockAverage

SHARED = SCANS / "dicom"
FOLDERS = sorted({file.parent for file in SHARED.rglob("*") if file.is_file() and not file.name.startswith("README")})


def code_of_doctor(folder, task):
    try:
        doctor(folder, [task])
    except BadInput:
        return 1
    except SystemExit as ended:
        return ended.code
    return 0


def code_of_run(folder, operator, trained_mm):
    try:
        cases = find_cases(folder, ["t1"], refused=True)
    except BadInput:
        return 1
    load, done = LoadVolumesd(["image"], operator, trained_mm=trained_mm), 0
    for case in cases:
        if "error" not in case:
            with suppress(BadInput):
                load(case)
                done += 1
    return 0 if done == len(cases) else 2 if done else 1


@needs_scans
@pytest.mark.parametrize(
    ("task", "operator", "trained_mm"), [("super_resolution", BlockAverage((4, 4, 4)), 1.0), ("any", AsScanned(), 0.0)]
)
@pytest.mark.parametrize("folder", FOLDERS, ids=[str(folder.relative_to(SHARED)) for folder in FOLDERS])
def test_doctor_and_run_end_alike(folder, task, operator, trained_mm):
    assert code_of_doctor(folder, task) == code_of_run(folder, operator, trained_mm)
