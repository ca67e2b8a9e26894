# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest

from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.evaluation.downstream_results import means as mean_scores
from scripts.evaluation.downstream_results import recoveries
from scripts.tables.downstream import load_downstream
from scripts.tables.formats import FORMATS
from scripts.tables.results import DOWNSTREAM, RESULTS
from scripts.tables.tables import means

REGIONS = ("TC", "WT", "ET")


@pytest.fixture
def write_downstream(tmp_path):
    """A function that writes a downstream.json as `DownstreamResults` does, and gives its folder.

    dice: {version: (cases, regions)}, the real and the degraded one first.
    """

    def write_downstream(folder, dice, *, regions=REGIONS, failures=None, **system):
        system = {"replaced": "flair", "degraded": "block averages", "block": [4, 4, 4], "predictions": [], **system}
        scores = {
            version: [{r: {"dice": value, "hd95": 1.0} for r, value in zip(regions, case, strict=True)} for case in cases]
            for version, cases in dice.items()
        }
        cases = {f"sub-{i}": {v: scores[v][i] for v in scores} for i in range(len(dice["real"]))}
        mean = mean_scores(cases, list(dice), regions)
        content = {"system": system, "n": len(cases), "mean": mean, "cases": cases, "failures": failures or {}}
        content["recovery"] = {version: recoveries(mean, version) for version in list(dice)[2:]}
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "downstream.json").write_text(json.dumps(content))
        return str(tmp_path / folder)

    return write_downstream


def table(*paths, **options):
    return means(load_downstream(paths), 2, **options)


def names(made):
    return [row.cells["system"].value.partition(" (paper")[0] for row in made.rows]


def test_dice_and_recovery_of_the_bounds_and_every_method_are_shown_beside_the_papers(write_downstream):
    dice = {"real": [[0.9, 0.8, 0.7]] * 3, "degraded": [[0.5, 0.6, 0.6]] * 3, "ours_tpdm": [[0.8, 0.75, 0.55]] * 3}
    made = table(write_downstream("a", dice))
    keys = [f"{kind}_{region}" for kind in ("dice", "recovery") for region in REGIONS]
    assert [column.key for column in made.columns] == ["system", *keys, "n"]
    assert names(made) == [
        "real", "GT FLAIR", "degraded", "Downsampled GT", "ours_tpdm", "Ours-TPDM, super-resolution", "Ours-TPDM, both"
    ]  # fmt: skip
    shown = [[row.cells[key].value for key in (*keys, "n")] for row in made.rows]
    assert shown[0] == pytest.approx([0.9, 0.8, 0.7, None, None, None, 3])
    assert shown[3] == pytest.approx([0.823, 0.8682, 0.803, None, None, None, 251])
    assert shown[4] == pytest.approx([0.8, 0.75, 0.55, 0.75, 0.75, -0.5, 3])
    assert shown[6] == pytest.approx([0.8246, 0.8791, 0.8074, 0.3866, 0.4667, 0.4897, 251])
    text = FORMATS["markdown"](made)
    assert "| 75.00 (75.00 to 75.00) | 75.00 (75.00 to 75.00) | -50.00 (-50.00 to -50.00) | 3 |" in text
    assert "| 38.66 | 46.67 | 48.97 | 251 |" in text


def test_the_interval_of_a_recovery_is_that_of_cases_drawn_again(write_downstream, rng):
    real, degraded, method = rng.uniform((0.8, 0.5, 0.6), (0.9, 0.6, 0.8), (12, 3)).T
    dice = {"real": real[:, None], "degraded": degraded[:, None], "x": method[:, None]}
    made = table(write_downstream("a", dice, regions=["WT"]))
    drawn = rng.integers(12, size=(20_000, 12))
    means_of = [values[drawn].mean(axis=1) for values in (method, degraded, real)]
    expected = np.percentile((means_of[0] - means_of[1]) / (means_of[2] - means_of[1]), [2.5, 97.5])
    cell = made.rows[-1].cells["recovery_WT"]
    assert cell.value == pytest.approx((method - degraded).mean() / (real - degraded).mean())
    assert cell.spread == pytest.approx(expected, abs=0.05 * np.ptp(expected))  # 6 standard deviations of 10 000 draws


def test_a_case_without_a_region_is_told_and_counts_in_neither_number(write_downstream):
    full, empty = [[0.9, 0.5]] * 3, [[0.9, None]]
    dice = {"real": full + empty, "degraded": [[0.5, 0.3]] * 3 + [[0.5, None]], "x": [[0.7, 0.4]] * 3 + [[0.7, None]]}
    cells = table(write_downstream("a", dice, regions=["WT", "ET"])).rows[-1].cells
    assert cells["dice_ET"].value == pytest.approx(0.4)
    assert cells["dice_ET"].notes == ("Dice ET (%) is undefined and left out of the mean in 1 of 4 cases: sub-3",)
    assert cells["recovery_ET"].value == pytest.approx(0.5)
    assert cells["n"].value == 4


def test_where_degrading_costs_nothing_there_is_no_recovery_and_a_note(write_downstream):
    cells = table(write_downstream("a", {version: [[0.9] * 3] * 3 for version in ("real", "degraded", "x")})).rows[-1].cells
    assert cells["recovery_WT"] == (None, (), ("recovery WT (%) is undefined: degrading cost no Dice",))


def test_a_recovery_from_few_cases_with_a_loss_has_no_interval_and_a_note(write_downstream):
    real, degraded = [[0.9] * 3] * 3, [[0.9] * 3] * 2 + [[0.6] * 3]
    cell = table(write_downstream("a", {"real": real, "degraded": degraded, "x": real})).rows[-1].cells["recovery_TC"]
    assert (cell.value, cell.spread) == (pytest.approx(1), ())
    assert "no interval" in cell.notes[0]


def test_failures_of_the_segmentation_are_told(write_downstream):
    dice = {version: [[0.9] * 3] * 3 for version in ("real", "degraded")}
    for row in table(write_downstream("a", dice, failures={"sub-9": "case sub-9: no prediction"})).rows[::2]:
        assert row.cells["n"].notes == ("1 of 4 cases failed, left out of every mean: case sub-9: no prediction",)


def test_the_record_beside_the_predictions_tells_method_task_and_nfe(write_downstream, write):
    folder = write("out", conditions=["flair", "t1ce"], target="flair", nfe=7)
    dice = {version: [[0.9] * 3] * 3 for version in ("real", "degraded", "fusion")}
    made = table(write_downstream("a", dice, predictions=[f"fusion={folder}", "gone=/nowhere"]))
    assert names(made)[-2:] == ["fusion", "Ours-TPDM, both"]
    assert made.rows[-2].cells["nfe"].value == 7


def test_what_an_older_file_says_of_folders_that_are_not_here_is_missed(write_downstream):
    dice = {version: [[0.9] * 3] * 3 for version in ("real", "degraded", "fusion")}
    cells = table(write_downstream("a", dice, predictions=["fusion=out/fusion"])).rows[-1].cells
    assert cells["system"].notes[0].startswith("method, task and NFE are not known: out/fusion is not there")


def test_the_table_is_the_same_wherever_it_is_made(write_downstream):
    dice = {version: [[0.9] * 3] * 3 for version in ("real", "degraded", "fusion")}
    folder = Path(write_downstream("a", dice, predictions=["fusion=out/fusion"]))
    content = json.loads((folder / "downstream.json").read_text())
    task = {"conditions": ["flair", "t1ce"], "target": "flair", "blocks": [[4, 4, 4]]}
    content["methods"] = {"fusion": {"task": task, "system": {"planes": ["coronal", "sagittal"], "fusion": True, "nfe": 7}}}
    (folder / "downstream.json").write_text(json.dumps(content))
    made = table(str(folder))
    assert names(made)[-2:] == ["fusion", "Ours-TPDM, both"]
    assert made.rows[-2].cells["nfe"].value == 7
    assert made.rows[-2].cells["system"].notes == ()


@pytest.mark.parametrize(("system", "expected"), [
    ({"block": [1, 1, 1], "degraded": "missing"}, ["real", "GT FLAIR", "degraded", "tosm", "TOSM, translation"]),
    ({"replaced": "t1ce"}, ["real", "degraded", "tosm"]),
    ({"block": [1, 1, 4]}, ["real", "degraded", "tosm"]),
], ids=str)  # fmt: skip
def test_the_paper_stands_beside_what_was_done_alike(system, expected, write_downstream):
    made = table(write_downstream("a", {version: [[0.9] * 3] * 3 for version in ("real", "degraded", "tosm")}, **system))
    assert names(made) == expected


def test_all_rows_of_the_paper_are_shown_when_asked_for(write_downstream):
    dice = {version: [[0.9] * 3] * 3 for version in ("real", "degraded", "tosm")}
    assert len(table(write_downstream("a", dice), published=True).rows) == 3 + 14


def test_regions_of_ones_own_follow_those_of_the_paper_and_empty_ones_are_left_out(write_downstream):
    dice = {version: [[0.9, 0.8]] * 3 for version in ("real", "degraded")}
    made = table(write_downstream("a", dice, regions=["core", "WT"], replaced="t1"))
    assert [column.key for column in made.columns] == ["system", "dice_WT", "dice_core", "n"]


def test_versions_of_several_files_are_told_apart(write_downstream):
    dice = {version: [[0.9] * 3] * 3 for version in ("real", "degraded")}
    made = table(write_downstream("a", dice, replaced="t1"), write_downstream("b", dice, replaced="t1"))
    assert names(made) == ["real, a", "degraded, a", "real, b", "degraded, b"]


def test_the_command_takes_the_file_that_fits_the_table(write_downstream, write, capsys):
    downstream = write_downstream("a", {version: [[0.9] * 3] * 3 for version in ("real", "degraded")})
    assert main(["tables", downstream, "--table", "2"]) == 0
    assert "Dice TC" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"holds no downstream\.json; run an evaluation first \(configs/evaluate_downstream"):
        load_downstream([write("b")])
    for path, number, wanted in ((f"{downstream}/{DOWNSTREAM}", "1", RESULTS), (f"{write('c')}/{RESULTS}", "2", DOWNSTREAM)):
        assert main(["tables", path, "--table", number]) == 1
        assert f"give {wanted} of an evaluation" in capsys.readouterr().err
