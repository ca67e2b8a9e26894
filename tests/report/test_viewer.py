# SPDX-License-Identifier: Apache-2.0
import base64
import gzip
import hashlib
import json
import re

import nibabel as nib
import numpy as np
import pytest
from browser import NO_GL, needs_chromium, opened
from heads import draw_head, save

from scripts.report import report, viewer
from scripts.report.slices import looks
from scripts.report.viewer import LEVELS, NIIVUE, viewer_parts

AFFINE = np.array([[0.9, 0.1, 0, -20], [-0.1, 1.0, 0, 30], [0, 0, 2.0, 5], [0, 0, 0, 1]])
READY = """const panel = document.getElementById("viewer"), canvas = panel.querySelector("canvas");
    for (let i = 0; i < 200 && !("ready" in panel.dataset); i++) await new Promise((on) => setTimeout(on, 100));
    const key = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    const values = () => Object.fromEntries([...panel.querySelectorAll("output span")].map((one) =>
        [one.firstChild.textContent, parseFloat(one.lastChild.textContent)]));
    function bright(colour) { // where pixels are bright: their mean place from the left and from below, and how many
        const nv = panel.niivue, gl = nv.gl, w = canvas.width, h = canvas.height, pixels = new Uint8Array(4 * w * h);
        nv.drawScene();
        gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
        let n = 0, x = 0, y = 0;
        for (let i = 0; i < w * h; i++) if (colour(...pixels.subarray(4 * i, 4 * i + 3))) { n++; x += i % w; y += i / w; }
        return { n, x: x / n / w, y: y / n / h };
    }
    const coloured = (r, g, b) => Math.max(r, g, b) - Math.min(r, g, b) > 60;
    const white = (r, g, b) => r > 200 && g > 200 && b > 200;
    function tell(told) { document.body.append(Object.assign(document.createElement("pre"),
        { id: "told", textContent: JSON.stringify(told) })); }
"""


@pytest.fixture
def volumes(rng):
    truth = np.zeros((30, 34, 40))
    truth[5:25, 6:28, 7:33] = rng.uniform(0.2, 1.0, (20, 22, 26))
    result = truth + rng.normal(0, 0.05, truth.shape) * (truth > 0)
    return {"input": truth.round(1), "result": result, "truth": truth, "error": result - truth, "uncertainty": truth / 20}


def embedded(volumes):
    """Of every volume the image that the page holds, in RAS."""
    told = json.loads(viewer_parts(volumes, AFFINE, looks(volumes))["volumes"])
    files = {one["name"]: gzip.decompress(base64.b64decode(one["file"])) for one in told}
    return {name: nib.as_closest_canonical(nib.Nifti1Image.from_bytes(file)) for name, file in files.items()}


def at_their_place(image, affine=AFFINE):
    """Indices in the whole volume of the first and last voxel of an image."""
    ends = nib.affines.apply_affine(np.linalg.inv(affine) @ image.affine, [[0, 0, 0], np.array(image.shape) - 1])
    np.testing.assert_allclose(ends, ends.round(), atol=1e-4)
    return tuple(slice(int(first), int(last) + 1) for first, last in ends.round().T)


def test_the_page_holds_every_volume_at_its_place_to_half_a_level(volumes):
    images = embedded(volumes)
    assert list(images) == list(volumes)
    for name, image in images.items():
        box = at_their_place(image)
        whole = np.zeros_like(volumes[name])
        whole[box] = image.get_fdata()
        top = 3 * looks(volumes)[name].high if name in ("error", "uncertainty") else np.ptp(volumes[name])
        error = np.abs(whole - np.clip(volumes[name], -top if name == "error" else None, top))
        assert error.max() <= (2 if name == "error" else 1) * top / LEVELS / 2 + 1e-6


def test_no_error_at_all_has_a_level_of_its_own(volumes):
    volumes["error"] = np.zeros_like(volumes["error"])
    np.testing.assert_allclose(embedded(volumes)["error"].get_fdata(), 0, atol=1e-8)  # scales are float32


def test_files_in_the_page_tell_nothing_but_grid_and_scale(volumes):
    header = embedded(volumes)["result"].header
    assert not any(header[field].item() for field in ("descrip", "aux_file", "intent_name", "db_name"))
    assert not header.extensions


def test_what_is_too_large_is_halved_where_it_is_finest_and_the_page_says_so(volumes, monkeypatch):
    whole = embedded(volumes)["truth"]
    assert viewer_parts(volumes, AFFINE, looks(volumes))["resolution"] == ""
    monkeypatch.setattr(viewer, "LARGEST", 60_000)
    parts = viewer_parts(volumes, AFFINE, looks(volumes))
    assert sum(len(one["file"]) for one in json.loads(parts["volumes"])) <= 60_000
    assert parts["resolution"] == "Drawn at 1.81 x 2.01 x 2 mm; the files have 0.906 x 1 x 2 mm."
    half = embedded(volumes)["truth"]
    pairs = whole.get_fdata()[: 2 * (whole.shape[0] // 2), : 2 * (whole.shape[1] // 2)]
    means = pairs.reshape(pairs.shape[0] // 2, 2, pairs.shape[1] // 2, 2, -1).mean((1, 3))
    np.testing.assert_allclose(half.get_fdata()[: means.shape[0], : means.shape[1]], means, atol=2 / LEVELS)
    first = nib.affines.apply_affine(np.linalg.inv(whole.affine) @ half.affine, [0, 0, 0])
    np.testing.assert_allclose(first, [0.5, 0.5, 0], atol=1e-4)


def test_niivue_is_the_release_that_its_note_names():
    code = gzip.decompress((NIIVUE / "niivue.umd.js.gz").read_bytes())
    assert hashlib.sha256(code).hexdigest() in (NIIVUE / "README.md").read_text().split()
    assert (NIIVUE / "niivue.umd.js.gz").stat().st_size < 1e6


@pytest.fixture
def run(tmp_path, rng):
    """An inference of one case whose result has a bright spot: on the patient's left, in front, above."""
    head = draw_head(rng) / 3
    head[5:9, 18:23, 22:27] = 900
    save(0.9 * head, tmp_path / "data" / "a_t1.nii.gz")
    save(head, tmp_path / "out" / "a" / "a_pred.nii.gz")
    save(head / 10, tmp_path / "out" / "a" / "a_uncertainty.nii.gz")
    system = {"conditions": ["t1"], "target": "t1", "block": [1, 1, 1], "samples": 7}
    sources = {"a": {"image": [str(tmp_path / "data" / "a_t1.nii.gz")]}}
    (tmp_path / "out" / "run.json").write_text(json.dumps({"system": system, "sources": sources, "cases": {"a": {}}}))
    report(str(tmp_path / "out"), truth_dir=str(tmp_path / "data"))
    return tmp_path


def told(html):
    return json.loads(re.search(r'<pre id="told">(.*?)</pre>', html).group(1))


@needs_chromium
def test_the_viewer_draws_and_follows_keys(run):
    script = """
        const start = values(), drawn = bright((r, g, b) => r + g + b > 100), found = { start, drawn };
        [...panel.querySelectorAll("#view button")].find((one) => one.textContent === "axial").click();
        for (let i = 0; i < 9; i++) key("ArrowUp");
        found.above = values();
        found.left = bright(white);
        key("s");
        found.radiological = bright(white);
        found.grey = bright(coloured).n;
        key("s"); key("u");
        found.coloured = bright(coloured).n;
        found.legend = panel.querySelector(".legend").textContent;
        key("u"); key("x");
        found.swapped = panel.querySelector("#image [aria-pressed=true]").textContent;
        key("x");
        found.back = panel.querySelector("#image [aria-pressed=true]").textContent;
        canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: 100, ctrlKey: true, bubbles: true, cancelable: true }));
        key("+");
        found.zoom = panel.niivue.scene.pan2Dxyzmm[3];
        const box = canvas.getBoundingClientRect(), at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
        canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -100, bubbles: true, ...at }));
        found.wheel = values();
        const moved = (kind, buttons, y) => canvas.dispatchEvent(new PointerEvent(kind,
            { bubbles: true, button: 2, buttons, clientX: at.clientX, clientY: at.clientY + y }));
        const top = () => panel.niivue.volumes[0].cal_max;
        found.window = [top()];
        moved("pointerdown", 2, 0); moved("pointermove", 2, -20); moved("pointermove", 0, -40);
        found.window.push(top());
        const input = JSON.parse(document.getElementById("volumes").textContent)[0].file, files = new DataTransfer();
        files.items.add(new File([Uint8Array.from(atob(input), (letter) => letter.charCodeAt(0))], "mine.nii.gz"));
        panel.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        for (let i = 0; i < 50 && !("mine.nii.gz" in values()); i++) await new Promise((on) => setTimeout(on, 100));
        found.dropped = values();
        key("r"); key("0");
        found.window.push(top());
        found.reset = values();
        found.still = document.querySelector(".still").open;
        tell(found);"""
    found = told(opened(run / "out" / "a" / "report.html", run / "profile", READY + script))
    assert found["drawn"]["n"] > 5000
    assert found["above"]["z"] == found["start"]["z"] + 9
    assert found["left"]["n"] > 50 and found["left"]["x"] < 0.5 < found["left"]["y"]
    assert found["radiological"]["x"] == pytest.approx(1 - found["left"]["x"], abs=0.02)
    assert found["coloured"] > 10 * found["grey"] + 1000  # the crosshair is blue
    assert "standard deviation of 7 samples, of the range of the truth" in found["legend"]
    assert (found["swapped"], found["back"]) == ("input", "result")
    assert found["zoom"] == pytest.approx(1.25)
    assert abs(found["wheel"]["z"] - found["above"]["z"]) == 1
    assert found["window"][1] < found["window"][0] == found["window"][2]  # upwards is brighter
    assert found["dropped"]["mine.nii.gz"] == pytest.approx(
        found["dropped"]["input"], rel=0.02, abs=0.006
    )  # two digits are drawn
    assert found["start"].items() <= found["reset"].items()
    assert not found["still"]


@needs_chromium
def test_without_webgl_the_slices_remain_and_the_page_says_why(run):
    wait = """const line = document.getElementById("no-viewer");
        for (let i = 0; i < 100 && line.hidden; i++) await new Promise((on) => setTimeout(on, 100));
        document.title = [line.textContent, document.getElementById("viewer").hidden, document.querySelector(".still").open];"""
    html = opened(run / "out" / "a" / "report.html", run / "profile", wait, flags=NO_GL)
    assert "<title>Only slices are shown: this browser offers no WebGL2.,true,true</title>" in html


@needs_chromium
def test_a_rating_is_kept_shown_among_all_cases_and_saved_as_a_table(run):
    rate = """document.querySelector(".rating [value=doubtful]").click();
        const line = document.querySelector(".rating input");
        line.value = "left\\tfolds"; line.dispatchEvent(new Event("input", { bubbles: true }));
        location.href = "../opened_report.html";"""
    group = run / "out" / "report.html"
    told_by = group.read_text().replace(
        "</body>",
        """<script>
        Blob = class { constructor(parts) { document.title = parts.join(""); } };  // read at once: time is simulated
        URL.createObjectURL = () => "#";
        document.querySelector(".save").click(); </script></body>""",
    )
    group.with_name("opened_report.html").write_text(told_by)
    html = opened(run / "out" / "a" / "report.html", run / "profile", rate, flags=NO_GL)
    head, line = re.search(r"<title>(.*?)</title>", html, re.DOTALL).group(1).strip().split("\n")
    assert head.split("\t") == ["case", "rating", "comment", "rated", "result_sha256"]
    result = hashlib.sha256((run / "out" / "a" / "a_pred.nii.gz").read_bytes()).hexdigest()
    case, rating, comment, _, digest = line.split("\t")
    assert (case, rating, comment) == ("a", "doubtful", "left folds")
    assert result.startswith(digest) and len(digest) == 12
    assert re.search(r'value="doubtful" aria-pressed="true"', html)
