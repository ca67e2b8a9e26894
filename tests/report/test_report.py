# SPDX-License-Identifier: Apache-2.0
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import NO_GL, needs_chromium, opened
from heads import METRICS, columns, pages, save

from scripts.errors import BadInput
from scripts.measurement import BlockAverage, Task, ThickScans
from scripts.measurement.intensity import intensity_range
from scripts.report import report
from scripts.report.run import recorded_case

sys.path.append(str(Path(__file__).parents[1] / "data" / "dicom"))

LARGEST_PAGE = 15e6


def test_pages_say_what_was_measured_and_done_and_the_worst_comes_first(run):
    group, cases = pages(run)
    assert columns(cases["a"]) == ["input", "result", "truth", "error"]
    assert (run / "out" / "a" / "planes.png").read_bytes()[:4] == b"\x89PNG"
    assert "21.25" in cases["a"]
    assert "versions: torch" in cases["a"]
    assert "a warning" in group and '<a href="../report.html">1 warning of the run</a>' in cases["a"]
    assert group.index('href="a/report.html"') < group.index('href="b/report.html"')
    assert "c: t1 has 3 &lt;voxels&gt;" in group
    assert "Not shown" not in cases["a"]
    for page in (group, *cases.values()):
        assert "Synthetic, not for diagnosis" in page
        assert "Zhu et al." in page
        assert "$" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_pages_need_no_network_and_are_small(run):
    group, cases = pages(run)
    for page in (group, *cases.values()):
        assert len(page) < LARGEST_PAGE
        assert not re.findall(r"https?:", page)
        references = re.findall(r"""(?:src|href)=["'](.*?)["']|url\((.*?)\)|@import""", page)
        beside = ("data:", "#", "../report.html", "a/", "b/", "a_pred.nii.gz", "b_pred.nii.gz")
        assert not [a or b for a, b in references if not (a or b).startswith(beside)]
        assert """http-equiv="Content-Security-Policy" content="default-src 'none';""" in page  # and no script can fetch


def test_every_picture_has_a_text(run):
    _, cases = pages(run, max_cases=1)
    pictures = re.findall(r"<img [^>]*>", cases["a"])
    assert len(pictures) == 3 * 4
    assert all(re.search(r'alt="\w+ of case a, \w+ slices"', picture) for picture in pictures)


def test_uncertainty_is_shown_when_it_is_there(run, head):
    save(head / 10, run / "out" / "a" / "a_uncertainty.nii.gz")
    _, cases = pages(run)
    assert "uncertainty" in columns(cases["a"])
    assert "uncertainty" not in columns(cases["b"])


def test_an_interval_is_shown_in_the_scale_of_the_truth(run, head):
    save(head / 20, run / "out" / "a" / "a_interval.nii.gz")
    _, cases = pages(run, max_cases=1)
    assert columns(cases["a"]) == ["input", "result", "truth", "error", "interval"]
    assert "half the width of the 80% interval, of the range of the truth" in cases["a"]
    np.testing.assert_allclose(recorded_case_of(run).volumes["interval"], head / 20 / head.max(), atol=1e-6)


def recorded_case_of(run):
    content = json.loads((run / "out" / "results.json").read_text())
    path = str(run / "data" / "a_t1.nii.gz")
    content["sources"] = {"a": {"image": [path], "label": path}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    return recorded_case(run / "out", "a")


def test_the_calibration_of_the_uncertainty_is_drawn(run):
    assert "Is the uncertainty right?" not in pages(run, max_cases=1)[0]
    content = json.loads((run / "out" / "results.json").read_text())
    content["calibration"] = {"predicted": [0.01, 0.02], "actual": [0.015, 0.03]}
    (run / "out" / "results.json").write_text(json.dumps(content))
    assert "Is the uncertainty right?" in pages(run, max_cases=1)[0]


def test_it_is_drawn_whether_the_interval_knows_where_a_result_is_wrong(run):
    assert "Does it know" not in pages(run, max_cases=1)[0]
    content = json.loads((run / "out" / "results.json").read_text())
    content["risk_coverage"] = {"kept": [0.5, 1.0], "error": [0.01, 0.03]}
    (run / "out" / "results.json").write_text(json.dumps(content))
    assert 'aria-label="Risk and coverage"><svg' in pages(run, max_cases=1)[0]


def test_a_run_without_a_truth_is_met_by_no_warning(run):
    system = {"conditions": ["t1"], "target": "t1", "block": [1, 1, 1]}
    (run / "out" / "results.json").unlink()
    sources = {case: {"image": [str(run / "data" / f"{case}_t1.nii.gz")]} for case in "ab"}
    (run / "out" / "run.json").write_text(json.dumps({"system": system, "sources": sources, "cases": {"a": {}, "b": {}}}))
    group = report(str(run / "out"))
    for page in (group, *group.parent.glob("*/report.html")):
        assert not re.search(r'<section class="notes">', page.read_text())


def test_what_lies_beside_a_page_is_linked(run):
    folder = run / "out" / "a"
    save(np.zeros((24, 28, 32)), folder / "a_uncertainty.nii.gz")
    (folder / "pred").mkdir()
    (folder / "uncertainty.dcm").touch()
    _, cases = pages(run)
    linked = dict(re.findall(r'<a href="(.*?)">(.*?)</a>', cases["a"]))
    assert linked["pred/"] == "result (folder of DICOM files)"
    assert {"a_pred.nii.gz", "a_uncertainty.nii.gz", "uncertainty.dcm"} <= linked.keys()
    assert not {"pred/", "b_uncertainty.nii.gz"} & dict(re.findall(r'<a href="(.*?)">(.*?)</a>', cases["b"])).keys()


def test_a_case_that_cannot_be_read_is_named_and_the_others_go_on(run):
    (run / "out" / "a" / "a_pred.nii.gz").write_bytes(b"cut off")
    group, cases = pages(run)
    assert set(cases) == {"b"}
    assert "a has no page: " in group


def test_a_case_that_failed_is_not_shown_with_an_earlier_result(run):
    content = json.loads((run / "out" / "results.json").read_text())
    content |= {"cases": {"b": METRICS}, "failures": {"a": "its grid is another"}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    group, cases = pages(run)
    assert set(cases) == {"b"}
    assert "a: its grid is another" in group


def test_results_of_an_earlier_run_do_not_get_the_facts_of_the_last(run):
    content = json.loads((run / "out" / "results.json").read_text())
    (run / "out" / "results.json").write_text(json.dumps(content | {"cases": {"b": METRICS}}))
    group, cases = pages(run)
    assert set(cases) == {"b"}
    assert "is of an earlier run" in group


def test_the_page_of_all_cases_says_what_is_doubtful_and_what_became_of_the_files(run):
    content = json.loads((run / "out" / "results.json").read_text())
    content["cases"]["b"] |= {"doubts": ["its sides may be swapped"]}
    refused = [{"reason": "is cut short", "count": 1, "files": ["c_t1.nii"]}]
    content["files"] = {"folder": "data", "used": 2, "left_out": [], "refused": refused}
    (run / "out" / "results.json").write_text(json.dumps(content))
    group, cases = pages(run)
    assert "case b: its sides may be swapped" in group and "its sides may be swapped" in cases["b"]
    assert "2 files used, 1 refused" in group


def test_names_of_cases_are_escaped(run, head):
    name = """x<b>&'"$1"""
    save(head, run / "out" / name / f"{name}_pred.nii.gz")
    content = json.loads((run / "out" / "results.json").read_text())
    content["cases"][name] = METRICS
    (run / "out" / "results.json").write_text(json.dumps(content))
    group, cases = pages(run)
    assert "x<b>" not in group + cases[name]
    assert "x&lt;b&gt;&amp;" in group
    assert 'href="x%3Cb%3E%26%27%22%241/report.html"' in group


def test_a_run_of_inference_shows_its_coarse_input_and_a_truth_that_is_given(run, head):
    (run / "out" / "results.json").unlink()
    shutil.rmtree(run / "out" / "b")
    (run / "data").rename(run / "truth")
    coarse = head.reshape(6, 4, 7, 4, 8, 4).mean(axis=(1, 3, 5))
    centre = np.diag([4.0, 4.0, 4.0, 1.0])
    centre[:3, 3] = 1.5
    save(coarse, run / "data" / "a_t1.nii.gz", centre)
    group, cases = pages(run)
    assert columns(cases["a"]) == ["input", "result"]
    assert "not evaluated" in group
    _, cases = pages(run, truth_dir=str(run / "truth"))
    assert columns(cases["a"]) == ["input", "result", "truth", "error"]


def test_a_sagittal_scan_is_shown_where_it_lies(run, head):
    """The networks saw it turned; the report shows it as the result lies."""
    coarse, affine = averages(head, (4, 1, 1))
    save(coarse, run / "scans" / "a_t1.nii.gz", affine)
    sources = {"a": {"image": [str(run / "scans" / "a_t1.nii.gz")]}}
    content = {
        "task": Task(["t1"], "t1", BlockAverage((1, 1, 4))).content(),
        "system": {},
        "cases": {"a": {}},
        "sources": sources,
    }
    (run / "out" / "run.json").write_text(json.dumps(content))
    (run / "out" / "results.json").unlink()
    shown = recorded_case(run / "out", "a")
    assert not shown.notes[1:]  # no truth, but all else
    blocks = np.kron(coarse, np.ones((4, 1, 1)))
    bright = intensity_range(torch.as_tensor(0.95 * head, dtype=torch.float32)[None, None]).high.item()
    inside = shown.volumes["input"] * bright  # in the units of the result, whose background is 0
    np.testing.assert_allclose(inside, blocks, atol=1e-3)


@pytest.mark.parametrize("how", ["resample", "register"])
def test_a_condition_of_another_grid_is_shown_as_the_run_used_it(run, rng, how):
    smooth = 500 + 300 * np.sin(np.indices((32, 36, 40)) / 4).prod(0)
    smooth[:4], smooth[-4:], smooth[:, :5], smooth[..., -6:] = 0, 0, 0, 0
    moved = np.eye(4)
    moved[0, 3] = 3 * (how == "register")  # the head moved, and its header does not know
    paths = [save(smooth, run / "two" / "a_t1.nii.gz"), save(smooth[:, 3:], run / "two" / "a_flair.nii.gz", moved)]
    save(smooth, run / "out" / "a" / "a_pred.nii.gz")
    content = {"task": Task(["t1", "flair"], "t2", None).content(), "cases": {"a": {}}, "sources": {"a": {"image": paths}}}
    (run / "out" / "results.json").unlink()
    (run / "out" / "run.json").write_text(json.dumps({**content, "system": {}}))
    assert "input" in recorded_case(run / "out", "a").notes[0]  # it was never on that grid
    (run / "out" / "run.json").write_text(json.dumps({**content, "system": {how: True}}))
    shown = recorded_case(run / "out", "a").volumes
    first, second = shown["input (t1)"], shown["input (flair)"]
    fits = np.corrcoef(first[6:-6, 4:-4].ravel(), np.roll(second, 3 * (how == "resample"), 1)[6:-6, 4:-4].ravel())[0, 1]
    assert fits > 0.98


def test_a_translation_is_compared_in_the_units_of_the_truth(run, head):
    save(3 * head + 40, run / "data" / "a_flair.nii.gz")
    save(3 * head + 40, run / "data" / "b_flair.nii.gz")
    save(head, run / "out" / "a" / "a_pred.nii.gz")  # in the units of t1: perfect but for the units
    _, cases = pages(run, conditions=["t1"], target="flair", block=[1, 1, 1], max_cases=1)
    low, high = re.search(r'<b>error</b><span class="scale"><span>(.*?)</span>.*?<span>(.*?)</span>', cases["a"]).groups()
    assert abs(float(low)) < 0.02
    assert abs(float(high)) < 0.02


THICK = {"axial": (1, 1, 4), "coronal": (1, 4, 1), "sagittal": (4, 1, 1)}


def averages(head, block):
    """Block averages on their own grid, and its affine."""
    h, w, d = (side // factor for side, factor in zip(head.shape, block, strict=True))
    affine = np.diag([*block, 1.0])
    affine[:3, 3] = (np.array(block) - 1) / 2  # the first centre moves into the block
    return head.reshape(h, block[0], w, block[1], d, block[2]).mean(axis=(1, 3, 5)), affine


def thick_planes(conditions):
    return Task(conditions, "t1", ThickScans(list(THICK.values()))).content()


def test_scans_in_three_planes_are_shown_one_by_one_after_an_evaluation(run, head):
    path = str(run / "data" / "a_t1.nii.gz")
    content = {"task": thick_planes(["t1"]), "system": {}, "mean": METRICS, "cases": {"a": METRICS}}
    content["sources"] = {"a": {"image": [path], "label": path}}
    (run / "out" / "results.json").write_text(json.dumps(content))
    page = (report(str(run / "out"), max_cases=1).parent / "a" / "report.html").read_text()
    assert "thick planes 1x1x4 + 1x4x1 + 4x1x1 of t1" in page
    assert "super-resolution" not in page
    assert columns(page) == ["input 1x1x4", "input 1x4x1", "input 4x1x1", "result", "truth", "error"]
    shown = recorded_case(run / "out", "a").volumes
    for block in THICK.values():
        coarse, _ = averages(head, block)
        fine = np.kron(coarse, np.ones(block)) / head.max()
        np.testing.assert_allclose(shown[f"input {'x'.join(map(str, block))}"], fine, atol=1e-6)  # float32


def test_scans_in_three_planes_are_shown_one_by_one_after_inference(run, head):
    for name, block in THICK.items():
        save(averages(head, block)[0], run / "scans" / f"a_{name}.nii.gz", averages(head, block)[1])
    sources = {"a": {"image": [str(run / "scans" / f"a_{name}.nii.gz") for name in THICK]}}
    content = {"task": thick_planes(list(THICK)), "system": {}, "cases": {"a": {"seconds": 2.0}}, "sources": sources}
    (run / "out" / "run.json").write_text(json.dumps(content))
    (run / "out" / "results.json").unlink()
    report(str(run / "out"), truth_dir=str(run / "data"), max_cases=1)
    page = (run / "out" / "a" / "report.html").read_text()
    assert "thick planes 1x1x4 + 1x4x1 + 4x1x1 of t1" in page
    assert columns(page) == [*(f"input {name}" for name in THICK), "result", "truth", "error"]


def test_records_of_0_6_say_their_scans_too(run):
    system = {"conditions": ["t1"], "target": "t1", "block": [4, 4, 4], "scans": list(THICK.values())}
    content = json.loads((run / "out" / "results.json").read_text()) | {"system": system}
    (run / "out" / "results.json").write_text(json.dumps(content))
    group, cases = pages(run, max_cases=1)
    assert "thick planes 1x1x4 + 1x4x1 + 4x1x1 of t1" in group
    assert columns(cases["a"])[:3] == ["input 1x1x4", "input 1x4x1", "input 4x1x1"]


def test_what_is_given_wins_over_the_record_title_and_all(run):
    content = json.loads((run / "out" / "results.json").read_text())
    content["task"] = Task(["t1"], "t1", BlockAverage((4, 4, 4)), "a title of its own").content()
    (run / "out" / "results.json").write_text(json.dumps(content))
    assert "a title of its own, 2 cases" in pages(run)[0]
    assert "thick slice 1x1x4 of t1" in pages(run, block=[1, 1, 4], max_cases=1)[0]


@pytest.mark.parametrize("place", ["out/nothing", "data"])
def test_a_folder_without_results_is_refused_by_name(place, run):
    with pytest.raises(BadInput, match=place):
        report(str(run / place))


@needs_chromium
def test_the_slider_moves_all_pictures_of_its_plane_in_a_browser(run):
    pages(run, max_cases=1)
    move = """const slider = document.getElementById("axial");
        slider.value = slider.max; slider.dispatchEvent(new Event("input"));
        document.title = document.querySelectorAll(".plane")[0].querySelector("img").naturalWidth > 0 ? "drawn" : "empty";"""
    shown = opened(run / "out" / "a" / "report.html", run / "browser", move, flags=NO_GL)
    assert "<title>drawn</title>" in shown
    axial = shown.index('<section class="plane" data-axis="2"')
    plane = shown[axial : shown.index("</section>", axial)]
    labels = json.loads(re.search(r'data-labels="(.*?)"', plane).group(1).replace("&quot;", '"'))
    columns_, last = int(re.search(r'data-columns="(\d+)"', plane).group(1)), len(labels) - 1
    assert f"--column: {last % columns_}; --row: {last // columns_};" in plane
    assert f">{labels[-1]}</output>" in plane
