# SPDX-License-Identifier: Apache-2.0
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from surroundings import SCANS, needs_scans

from scripts.__main__ import main
from scripts.data import PrepareTrainingd
from scripts.errors import BadInput
from scripts.experiments import floors as module
from scripts.experiments import rivals
from scripts.experiments.floors import floors
from scripts.experiments.rivals import Samples, interpolations, learned
from scripts.measurement import BlockAverage
from scripts.measurement.intensity import intensity_range, tissue_range
from scripts.tables.gate import gate

pytestmark = pytest.mark.filterwarnings("ignore")
SIDES = (32, 36, 40)
FACTORS = (4, 4, 4)


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setitem(rivals.TREES, "max_iter", 30)


@pytest.fixture
def case(draw_head):
    """A function (target) -> condition and what `target` makes of it within the head, both (1, H, W, D)."""

    def case(target):
        condition = draw_head(*SIDES)[0]
        place = torch.linspace(-1, 1, SIDES[1])[None, None, :, None]
        return {"image": 300 * condition, "label": 70 * target(condition, place) * (condition > 0)}

    return case


def fitted(cases, degradation=None):
    return learned(Samples.of(map(PrepareTrainingd(degradation), cases)), degradation)


def error(rival, case):
    """Root mean square within the head, in the units of networks."""
    image = case["image"][None]
    found = intensity_range(image[:, :1]).normalize(rival(image, None))
    truth = tissue_range(case["label"][None]).normalize(case["label"][None])
    return float((found - truth)[case["label"][None] > 0].square().mean().sqrt())


def test_a_matched_histogram_finds_any_rising_map_between_contrasts_and_a_mean_does_not(case):
    cases = [case(lambda condition, place: condition**3) for _ in range(4)]
    found = fitted(cases[:3])
    assert error(found["matched histogram"], cases[3]) < 0.05  # heads differ in the median that is their scale
    assert _deviation(cases[3]) > 0.15
    assert error(found["mean intensity"], cases[3]) == pytest.approx(_deviation(cases[3]), rel=0.1)


def _deviation(case):
    truth = tissue_range(case["label"][None]).normalize(case["label"][None])
    return float(truth[case["label"][None] > 0].std())


def test_trees_find_a_map_that_is_not_rising_and_with_position_one_that_differs_from_place_to_place(case):
    fold = [case(lambda condition, place: (condition - 0.95).abs() + 0.5) for _ in range(4)]
    found = fitted(fold[:3])
    assert error(found["trees"], fold[3]) < 0.2 * error(found["matched histogram"], fold[3])
    placed = [case(lambda condition, place: condition + 3 * place**2) for _ in range(4)]
    found = fitted(placed[:3])
    assert error(found["trees with position"], placed[3]) < 0.5 * error(found["trees"], placed[3])


def test_the_background_stays_what_it_is(case):
    cases = [case(lambda condition, place: condition) for _ in range(2)]
    for rival in fitted(cases[:1]).values():
        image = cases[1]["image"][None]
        assert float(rival(image, None)[image == 0].abs().max()) < 1e-3


def test_fitting_again_gives_the_same(case):
    cases = [case(lambda condition, place: condition + place) for _ in range(2)]
    first, second = (fitted(cases[:1])["trees with position"](cases[1]["image"][None], None) for _ in range(2))
    assert torch.equal(first, second)


@pytest.fixture
def measured(case):
    """Cases of a low-resolution target and a finer contrast from which it follows."""
    average = BlockAverage(FACTORS)
    cases = []
    for _ in range(4):
        both = case(lambda condition, place: 2.2 - condition)
        low = average(both["label"])
        cases.append({"image": torch.cat([low, both["image"]]), "label": both["label"]})
    return average, cases


def test_rivals_of_a_measurement_keep_it_and_trees_take_the_detail_from_the_other_contrast(measured):
    average, cases = measured
    image, truth = cases[3]["image"][None], cases[3]["label"][None]
    found = {**interpolations(average), **fitted(cases[:3], average)}
    errors = {}
    for name, rival in found.items():
        result = rival(image, None)
        errors[name] = float((result - truth).square().mean())
        kept = torch.allclose(average(result), image[:, :1], atol=1e-3 * 70)
        assert kept == (name in ("repeat", "cubic, consistent", "trees", "trees with position")), name
    assert errors["cubic, consistent"] <= errors["cubic"]  # the truth has that measurement: an orthogonal projection
    assert errors["trees"] < 0.3 * errors["cubic, consistent"]


@pytest.mark.parametrize(("name", "tolerance"), [("trilinear", 1e-4), ("cubic", 0.25)])  # the cubic's a is -0.75, for edges
def test_interpolation_restores_a_ramp_in_the_middle(name, tolerance):
    average = BlockAverage(FACTORS)
    ramp = torch.arange(32.0)[None, None, :, None, None].expand(1, 1, 32, 32, 32)
    result = interpolations(average)[name](average(ramp), None)
    torch.testing.assert_close(result[:, :, 8:-8], ramp[:, :, 8:-8], atol=tolerance, rtol=0)


@pytest.fixture
def data(tmp_path, case):
    """A folder of four cases of two contrasts with a tumour that the first does not show, three of them to measure on."""
    for index in range(5):
        volumes = case(lambda condition, place: condition**2)
        tumour = np.zeros(SIDES, dtype=np.float32)
        tumour[12:18, 12:18, 12:18] = 1
        volumes["label"] += 50 * torch.from_numpy(tumour)
        for name, voxels in (("t1ce", volumes["image"][0]), ("flair", volumes["label"][0]), ("seg", tumour)):
            nib.save(
                nib.Nifti1Image(np.asarray(voxels, dtype=np.float32), np.diag([2, 2, 2, 1])),
                tmp_path / f"c{index}_{name}.nii.gz",
            )
    (tmp_path / "splits.csv").write_text("case,split\nc0,train\nc1,train\nc2,val\nc3,val\nc4,val\n")
    return tmp_path


def test_floors_are_results_that_tables_and_gate_read(data, capsys):
    out = data / "out"
    assert main(["floors", str(data), "-o", str(out), "--task", "translation", "--mask", "seg"]) == 0
    table = capsys.readouterr().out.split("What a network must beat")[-1]
    names = ["matched_histogram", "mean_intensity", "trees", "trees_with_position"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "rivals.json"])
    for name in names:
        results = json.loads((out / name / "results.json").read_text())
        assert list(results["cases"]) == ["c2", "c3", "c4"]
        assert results["system"] == {"name": name.replace("_", " ")}
        assert results["mean"]["tumour_auc_truth"] > 0.9
        row = next(line for line in table.splitlines() if line.startswith(f"| {name.replace('_', ' ')} |"))
        assert f"| {results['mean']['psnr']:.2f} (" in row and f"| {results['mean']['psnr_fitted']:.2f} (" in row
    matched = json.loads((out / "matched_histogram" / "results.json").read_text())["mean"]
    assert matched["tumour_auc"] < 0.7  # the condition does not show it
    with pytest.raises(SystemExit) as ended:
        main(["gate", str(out / "mean_intensity"), str(out)])
    assert ended.value.code == 3  # nothing is above itself


def test_another_contrast_and_block_are_ids_of_the_configs(data, capsys):
    settings = ["--set", "conditions=['flair']", "--set", "target=flair", "--set", "block=[2, 2, 2]", "--max-cases", "1"]
    assert main(["floors", str(data), "-o", str(data / "out"), *settings]) == 0
    assert "**super-resolution 2x2x2 of flair**" in capsys.readouterr().out
    found = {path.name for path in (data / "out").iterdir()}
    assert found == {"repeat", "trilinear", "cubic", "cubic_consistent", "trees", "trees_with_position", "rivals.json"}


@pytest.fixture
def measuring(monkeypatch):
    """A function (code) that makes each evaluation of two rivals leave its results, in which a case failed, and end so."""

    def measuring(code):
        def run_workflow(*arguments, output_dir, system, **options):
            case = {"psnr": 20.0, "psnr_fitted": 21.0, "ssim": 0.5}
            told = {**system, "conditions": ["t1"], "target": "t1", "block": [4, 4, 4]}
            content = {"system": told, "cases": dict.fromkeys("abc", case), "failures": {"d": "case d: holds NaN"}}
            output_dir.mkdir(parents=True)
            (output_dir / "results.json").write_text(json.dumps(content))
            raise SystemExit(code)

        monkeypatch.setattr(module, "rivals", lambda *_: {"repeat": None, "cubic, consistent": None})
        monkeypatch.setattr(module, "run_workflow", run_workflow)

    return measuring


def test_a_case_that_fails_ends_no_rival_but_its_own_means_and_the_exit_code(measuring, tmp_path, capsys):
    measuring(2)
    with pytest.raises(SystemExit) as ended:
        floors("data", str(tmp_path))
    assert ended.value.code == 2
    said = capsys.readouterr().out
    assert "| repeat | 20.00" in said and "| cubic, consistent | 20.00" in said and "1 of 4 cases failed" in said


def test_who_stops_the_floors_stops_them_and_no_gate_opens_by_it(measuring, tmp_path):
    measuring(143)  # SIGTERM
    with pytest.raises(SystemExit) as ended:
        floors("data", str(tmp_path / "floors"))
    assert ended.value.code == 143
    with pytest.raises(BadInput, match="floors: lacks the results of cubic_consistent; run floors again, to its end"):
        gate(str(tmp_path / "floors" / "repeat"), str(tmp_path / "floors"))


def test_a_task_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match="no task 't1_to_ct'; choose one of"):
        floors(str(tmp_path), str(tmp_path / "out"), task="t1_to_ct")


@needs_scans
def test_on_real_scans_trees_say_more_than_a_histogram(tmp_path):
    few = tmp_path / "few"  # of the patients
    few.mkdir()
    head, *rows = (SCANS / "glioma" / "splits.csv").read_text().splitlines()
    chosen = [*[row for row in rows if row.endswith(",train")][:12], *[row for row in rows if row.endswith(",val")][:2]]
    for row in chosen:
        (few / row.split(",")[0]).symlink_to(SCANS / "glioma" / row.split(",")[0])
    (few / "splits.csv").write_text("\n".join([head, *chosen]))
    floors(str(few), str(tmp_path / "out"), task="translation")
    psnr = {
        name: json.loads((tmp_path / "out" / name / "results.json").read_text())["mean"]["psnr"]
        for name in ("matched_histogram", "trees")
    }
    assert psnr["trees"] > psnr["matched_histogram"]
