# SPDX-License-Identifier: Apache-2.0
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.tables.gate import gate

CASES = 20


@pytest.fixture
def results(write, rng):
    """A function (folder, above, fitted) that writes results which are so many dB above those of the others, case by case."""
    level = rng.normal(25, 3, CASES)  # cases differ by more than systems do: unpaired, nothing could be told

    def results(folder, above=0.0, fitted=None, **more):
        noise = rng.normal(0, 0.1, (2, CASES))
        psnr, other = level + above + noise[0], level + 1 + (above if fitted is None else fitted) + noise[1]
        metrics = {f"sub-{index}": {"psnr_fitted": value} for index, value in enumerate(other)}
        return write(folder, list(psnr), metrics=metrics, name=Path(folder).name, **more)

    return results


def cell(text, floor):
    """Mean and interval of the first difference from a floor."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {floor} "))
    return [float(number) for number in re.findall(r"[+-]\d+\.\d+", row)[:3]]


def test_results_above_every_floor_pass(results, tmp_path, capsys):
    floors = [results(f"floors/{name}", above) for name, above in (("cubic", -2), ("trees", -0.5))]
    gate(results("network"), str(tmp_path / "floors"))
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "super-resolution 4x4x4 of t1: passes, above all 2 floors"
    ours, theirs = (
        np.array([case["psnr"] for case in json.loads(Path(folder, "results.json").read_text())["cases"].values()])
        for folder in (tmp_path / "network", floors[1])
    )
    difference = ours - theirs
    half = norm.ppf(0.975) * difference.std() / CASES**0.5
    mean, low, high = cell(said, "trees")
    assert mean == pytest.approx(difference.mean(), abs=0.006)  # two digits
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.03)


@pytest.mark.parametrize(
    ("above", "fitted", "named"),
    [
        (0.5, 0.5, "cubic in PSNR (dB), cubic in PSNR fitted (dB)"),
        (-1, 0.5, "cubic in PSNR fitted (dB)"),
        (0.5, -1, "cubic in PSNR (dB)"),
    ],
)  # fmt: skip
def test_one_floor_that_is_better_in_one_metric_is_enough_not_to_pass(above, fitted, named, results, tmp_path, capsys):
    results("floors/cubic", above, fitted), results("floors/trees", -1)
    with pytest.raises(SystemExit) as ended:
        main(["gate", results("network"), str(tmp_path / "floors")])
    assert ended.value.code == 3
    assert capsys.readouterr().out.splitlines()[-1] == f"super-resolution 4x4x4 of t1: does not pass, not above {named}"


def test_a_difference_within_chance_does_not_pass(results, tmp_path, capsys):
    folder = results("network")
    floor = json.loads(Path(folder, "results.json").read_text())
    for index, case in enumerate(floor["cases"].values()):
        for key in ("psnr", "psnr_fitted"):
            case[key] += 1 if index % 2 else -1.01  # the network is better, by a hair on average
    (tmp_path / "floors").mkdir()
    (tmp_path / "floors" / "results.json").write_text(json.dumps(floor))
    with pytest.raises(SystemExit):
        gate(folder, str(tmp_path / "floors"))
    assert "does not pass" in capsys.readouterr().out


def test_what_cannot_be_paired_is_refused(results, write, tmp_path):
    ours = results("network")
    results("other/cubic", block=[2, 2, 2])
    with pytest.raises(
        BadInput, match=r"is of another task \(super-resolution 2x2x2 of t1\); run floors for super-resolution 4x4x4"
    ):
        gate(ours, str(tmp_path / "other"))
    write("older/cubic", [20.0] * CASES)
    with pytest.raises(BadInput, match=f"PSNR fitted .* is there for {CASES} cases of the results and 0 of this floor"):
        gate(ours, str(tmp_path / "older"))
    metrics = {f"sub-{index}": {"psnr_fitted": 21.0} for index in range(2)}
    few = [write(folder, [20.0, 21.0], metrics=metrics) for folder in ("few", "floors/few")]
    with pytest.raises(BadInput, match="of 2 cases says nothing; measure at least 3"):
        gate(*few)
    results("two/a"), results("two/b")
    with pytest.raises(BadInput, match="holds 2 results; give that of a single evaluation"):
        gate(str(tmp_path / "two"), ours)
