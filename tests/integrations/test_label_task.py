# SPDX-License-Identifier: Apache-2.0
"""What a request to the MONAI Label app may say; needs no server."""

import math

import pytest
import torch

from scripts.errors import BadInput
from scripts.integrations.label.task import StudyTask, choice_of, device_of, numbers_of

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
