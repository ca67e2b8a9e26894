# SPDX-License-Identifier: Apache-2.0
"""What a request to the MONAI Label app may say; needs no server."""

import math

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.errors import BadInput
from scripts.integrations.label.task import StudyTask, choice_of, device_of, doubts_of, numbers_of

DEFAULTS = {"steps": 1, "learning_rate": 1.0e-3}


def test_numbers_come_as_a_client_sends_them():
    assert numbers_of({"steps": "4", "seed": 9}, DEFAULTS) == {"steps": 4, "learning_rate": 1.0e-3}
    assert numbers_of({"steps": 4.0, "learning_rate": 1}, DEFAULTS) == {"steps": 4, "learning_rate": 1.0}


@pytest.mark.parametrize(
    "value", ["many", "$__import__('os')", "@seed", 2.5, "2.5", math.nan, math.inf, None, [1], {"_target_": "os"}]
)
def test_what_is_no_whole_number_does_not_reach_a_config(value):
    with pytest.raises(BadInput, match=r"^steps .*: is no whole number; the default is 1$"):
        numbers_of({"steps": value}, DEFAULTS)


def test_text_in_a_config_would_be_run(tmp_path):
    """Why the numbers are checked: the parser evaluates what begins with a dollar."""
    parser = StudyTask("any", str(tmp_path)).parser("inference", {"seed": "$40 + 2"})
    assert parser.get_parsed_content("seed") == 42


@pytest.mark.parametrize("given", [{}, {"part": "fusion"}, {"part": ["fusion", "coronal"]}])
def test_the_first_choice_is_the_default_also_for_a_client_that_sends_all(given):
    assert choice_of(given, "part", ["fusion", "coronal"]) == "fusion"


@pytest.mark.parametrize("value", ["../../home", "", [], ["axial"], None, 3])
def test_a_choice_that_is_not_offered_is_refused(value):
    with pytest.raises(BadInput, match="is not known; choose of fusion, coronal"):
        choice_of({"part": value}, "part", ["fusion", "coronal"])


def test_a_device_is_one_that_pytorch_knows():
    assert device_of("cpu") == torch.device("cpu")
    with pytest.raises(BadInput, match="there is no such device"):
        device_of("cpu') or __import__('os")


def test_doubts_are_told_as_restore_records_them(tmp_path, rng):
    """Of the weights, of the volume, and of the computation, in this order."""
    task, file = StudyTask("translation", str(tmp_path)), tmp_path / "scan_t1ce.nii.gz"
    voxels = np.zeros((20, 20, 20), np.float32)
    voxels[4:-4, 4:-4, 4:-4] = rng.uniform(300, 900, (12, 12, 12))
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])), file)
    parser = task.parser("inference", {"force": True})  # noise is refused otherwise
    image = parser.get_parsed_content("preprocessing")(task.case_of(str(file)) | {"case": "scan"})["image"]
    parser.get_parsed_content("inferer").doubts = ["computed in other numbers"]
    told = doubts_of({"image": image, "parser": parser})
    assert told[0] == task.limits.caveat != "" and told[-1] == "computed in other numbers"
    assert any(line.startswith("t1ce is unlike what the weights saw") for line in told[1:-1])
