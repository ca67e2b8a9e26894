# SPDX-License-Identifier: Apache-2.0
"""What pictures and viewer show: loops without left and right, other contrasts and hot voxels in their own range."""

import base64
import gzip
import json
import re
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
from browser import needs_chromium, opened
from heads import save
from matplotlib.image import imread

from scripts.measurement import BlockAverage, Task
from scripts.report import planes_figure as figure_module
from scripts.report import report, slices
from scripts.report.planes_figure import planes_figure
from scripts.report.run import recorded_case
from scripts.report.slices import looks, plane_name, planes
from scripts.report.viewer import viewer_parts

LOOP = ("x", "y", "t")


@pytest.fixture
def texts(monkeypatch):
    """Every text of a picture of planes, as it is drawn."""
    found = []
    draw = figure_module.Figure.savefig

    def saved(figure, *arguments, **options):
        found.extend(text.get_text() for axes in figure.axes for text in axes.texts)
        return draw(figure, *arguments, **options)

    monkeypatch.setattr(figure_module.Figure, "savefig", saved)
    return found


def restored(folder, voxels, task, read=None):
    """What an inference leaves of a case a; its page."""
    save(voxels, folder / "out" / "a" / "a_pred.nii.gz")
    sources = {"a": {"image": [save(voxels if read is None else read, folder / "in" / f"a_{task.conditions[0]}.nii.gz")]}}
    content = {"task": task.content(), "system": {}, "sources": sources, "cases": {"a": {}}}
    (folder / "out" / "run.json").write_text(json.dumps(content))
    report(str(folder / "out"))
    return folder / "out" / "a" / "report.html"


@pytest.fixture
def loop(tmp_path, head):
    return restored(tmp_path, head, Task(["cine"], "cine", BlockAverage((4, 4, 1)), axes=LOOP), head[::4, ::4])


def test_a_loop_without_a_json_beside_it_is_shown_with_its_bright_air(tmp_path, head):
    bright = np.where(head > 0, head, 2 * head.max()).astype(np.float32)
    restored(tmp_path, bright, Task(["cine"], "cine", BlockAverage((4, 4, 1)), axes=LOOP), bright[::4, ::4])
    shown = recorded_case(tmp_path / "out", "a").volumes["result"]
    assert shown[0, 0, 0] == shown.max()


def test_a_picture_of_a_loop_has_no_left_and_right(head, texts, tmp_path):
    planes_figure({"result": head}, tmp_path / "loop.png", axes=LOOP)
    assert texts == ["y-t", "x-t", "x-y"]
    texts.clear()
    planes_figure({"result": head}, tmp_path / "head.png")
    assert texts == ["sagittal", "coronal", "L", "R", "axial", "L", "R"]
    assert [plane_name(axis) for axis in range(3)] == ["sagittal", "coronal", "axial"]


def test_a_page_of_a_loop_speaks_of_no_body(loop, texts):
    report(str(loop.parents[1]))
    assert texts == ["y-t", "x-t", "x-y"]  # of planes.png
    page = re.sub(r"<script.*?</script>", "", loop.read_text(), flags=re.DOTALL)
    shown = re.sub(r'<dt class="of-body">.*?</dd>', "", page, flags=re.DOTALL)
    for word in ("patient", "Folds", "left-right", "sagittal"):
        assert word not in shown
    assert "voxels averaged (x, y, t)" in shown


@needs_chromium
def test_the_viewer_of_a_loop_names_its_axes_and_counts_frames(loop, tmp_path):
    script = """
        const panel = document.getElementById("viewer"), wait = () => new Promise((on) => setTimeout(on, 100));
        for (let i = 0; i < 200 && !("ready" in panel.dataset); i++) await wait();
        const buttons = (id) => [...panel.querySelectorAll(`#${id} button`)].map((one) => one.textContent);
        const { isOrientationTextVisible, isRadiologicalConvention } = panel.niivue.opts;
        const place = [...panel.querySelectorAll("output span")].slice(0, 3).map((one) => one.textContent);
        panel.querySelector("canvas").dispatchEvent(new KeyboardEvent("keydown", { key: "s", bubbles: true }));
        const keys = [...panel.querySelectorAll(".of-body")].map((one) => one.hidden);
        console.error = () => {}; // NiiVue's own word to it
        const files = new DataTransfer();
        files.items.add(new File(["no volume"], "notes.txt"));
        panel.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        for (let i = 0; i < 50 && !panel.querySelector(".refused").textContent; i++) await wait();
        const told = { view: buttons("view"), switches: buttons("switches"), isOrientationTextVisible, place, keys,
            turned: isRadiologicalConvention || panel.niivue.opts.isRadiologicalConvention,
            refused: panel.querySelector(".refused").textContent };
        panel.style.width = "200px";
        const right = (one) => one.getBoundingClientRect().right;
        told.cut = [...panel.querySelectorAll(".choice button")].filter((one) => right(one) > right(panel)).length;
        const shown = Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) });
        document.body.append(shown);"""
    told = json.loads(re.search(r'<pre id="told">(.*?)</pre>', opened(loop, tmp_path / "profile", script)).group(1))
    assert told["view"] == ["planes", "x-y", "x-t", "y-t", "3D"] and told["switches"] == ["window"]
    assert not told["isOrientationTextVisible"] and not told["turned"] and all(told["keys"])
    assert [re.fullmatch(r"([xyt]) \d+", one).group(1) for one in told["place"]] == ["x", "y", "t"]
    assert told["cut"] == 0  # of the buttons, on a narrow screen
    assert told["refused"] == "notes.txt: cannot be shown; drop a NIfTI file"


def drawn(plane, name):
    return imread(BytesIO(base64.b64decode(plane.sheets[name].split(",")[1])), format="webp")[..., 0] / 255


def test_one_input_of_another_contrast_is_drawn_in_its_own_range(tmp_path, head):
    """A truth with a hot voxel leaves the result a tenth of the scale, and the input all of its own."""
    truth = head.copy()
    truth[12, 14, 16] = 10 * head.max()
    save(truth, tmp_path / "truth" / "a_flair.nii.gz")
    restored(tmp_path, truth, Task(["t1ce"], "flair", None), 3 * head)
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    content["sources"]["a"]["label"] = str(tmp_path / "truth" / "a_flair.nii.gz")
    (tmp_path / "out" / "run.json").write_text(json.dumps(content))
    shown = recorded_case(tmp_path / "out", "a")
    assert shown.own == ["input"]
    styles = looks(shown.volumes, own=shown.own)
    assert styles["input"].high == 1 and styles["result"].high == styles["truth"].high < 0.12
    (axial, *_) = planes(shown.volumes, shown.affine, styles)
    means = {name: drawn(axial, name).mean() for name in ("input", "truth")}
    assert means["input"] == pytest.approx(means["truth"], rel=0.1)


def test_the_picture_draws_it_so_too_and_takes_no_scale_from_it(tmp_path, head, monkeypatch):
    spans, draw = {}, figure_module.Figure.savefig

    def saved(figure, *arguments, **options):
        spans.update({axes.get_title(): axes.images[0].get_clim() for axes in figure.axes if axes.get_title() and axes.images})
        return draw(figure, *arguments, **options)

    monkeypatch.setattr(figure_module.Figure, "savefig", saved)
    share = head / head.max()
    planes_figure({"input": share, "result": 0.1 * share}, tmp_path / "planes.png", own=["input"])
    assert spans["input"] == (0, 1) and spans["result"][1] == pytest.approx(0.1, rel=0.01)


def test_inputs_that_are_measurements_share_the_scale_of_the_result(tmp_path, head):
    both = {"input (t1)": head / 2000, "input (flair)": head / 900, "result": head / 2000}
    styles = looks(both, own=["input (flair)"])
    assert styles["input (t1)"].high == styles["result"].high < 0.5 and styles["input (flair)"].high == 1


def embedded(shown, styles):
    told = json.loads(viewer_parts(shown.volumes, shown.affine, styles)["volumes"])
    return {one["name"]: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(one["file"]))) for one in told}


@pytest.mark.parametrize("times", [8, 40, -40])
def test_a_hot_or_dark_voxel_does_not_set_the_scale(tmp_path, head, times):
    one = head.copy()
    one[12, 14, 16] = times * head.max()
    restored(tmp_path, one, Task(["t1"], "t1", BlockAverage((4, 4, 4))))
    shown = recorded_case(tmp_path / "out", "a")
    styles = looks(shown.volumes)
    (axial, *_) = planes(shown.volumes, shown.affine, styles)
    assert (drawn(axial, "result") > 0.25).mean() > 0.3  # of the sheet: a head
    image = embedded(shown, styles)["result"]
    assert min(image.shape) > 16 and len(np.unique(image.get_fdata())) > 50  # all of it, and greys enough
    pixels = imread(tmp_path / "out" / "a" / "planes.png")[..., :3].max(axis=-1)
    assert ((pixels > 0.3) & (pixels < 0.99)).mean() > 0.1  # greys, no black or white blot


def test_a_hot_voxel_of_the_truth_does_not_cut_the_head_away(head):
    truth = head.copy()
    truth[12, 14, 16] = 40 * head.max()
    truth /= truth.max()
    volumes = {"result": truth, "truth": truth, "error": np.zeros_like(truth)}
    styles = looks(volumes)
    box = slices.visible_box(volumes, styles)
    assert truth[box].shape == (22, 26, 30)  # the head with its margin
    assert (drawn(planes(volumes, np.eye(4), styles)[0], "truth") > 0.25).mean() > 0.3


@pytest.mark.parametrize("sides", [(1640, 20, 252), (20, 1640, 252), (16000, 4, 6)])
def test_wide_volumes_fit_into_pictures(sides):
    wide = np.full(sides, 0.5)
    for plane in planes({"result": wide}, np.eye(4), looks({"result": wide})):
        height, width = drawn(plane, "result").shape
        assert max(height, width) <= 16383
        assert len(plane.labels) <= plane.rows * plane.columns


def test_a_case_that_no_picture_holds_does_not_stop_the_others(tmp_path, head, monkeypatch, capsys):
    restored(tmp_path, head, Task(["t1"], "t1", BlockAverage((4, 4, 4))))
    monkeypatch.setattr(slices, "LARGEST_SIDE", 10)
    group = report(str(tmp_path / "out"))
    assert "a has no page: its " in group.read_text() and "a picture at most 10 a side" in capsys.readouterr().out


def test_a_picture_of_a_long_strip_is_drawn(tmp_path):
    planes_figure({"result": np.full((4, 4, 2000), 0.5)}, tmp_path / "strip.png")
    assert imread(tmp_path / "strip.png").shape[0] <= 100 * 110  # not the 3000 inches of its proportions
