# SPDX-License-Identifier: Apache-2.0
"""Real servers of MONAI Label in their own environment (`make test-integrations`), asked over HTTP as a client does."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import nibabel as nib
import numpy as np
import pytest
import torch
from surroundings import needs

from scripts import bundle_root
from scripts.integrations.label.stock_bundle import stock_bundle
from scripts.networks import ScoreFusion

ROOT = Path(bundle_root())
PYTHON = Path(os.environ.get("LABEL_PYTHON", ROOT / ".venv-label" / "bin" / "python"))
pytestmark = needs("MONAI Label (make test-integrations)", PYTHON.exists())
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TILT = 3.9 / 4, np.sqrt(1 - (3.9 / 4) ** 2)
OBLIQUE = np.array([[0, 4 * TILT[1], 4.2 * TILT[0], -20], [-4, 0, 0, 30], [0, 4 * TILT[0], -4.2 * TILT[1], 10], [0, 0, 0, 1]])
COARSE, FINE = (12, 10, 11), (48, 40, 44)


CLIENT = """
import json, shutil
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
client, scan = MONAILabelClient({url!r}, tmpdir={folder!r}), {scan!r}
answers = {{"next": client.next_sample("random", {{}})["id"], "uploaded": client.upload_image(scan, "new_t1ce")["image"]}}
result, _ = client.infer("both", "scan_flair", {{}})
client.save_label("scan_flair", result, "final", {{}})
shutil.move(result, {folder!r} + "/result.nii.gz")
shutil.move(client.download_label("scan_flair", "final"), {folder!r} + "/label.nii.gz")
session = client.create_session(scan)["session_id"]
try:
    client.infer("both", "", {{}}, session_id=session)
except MONAILabelClientException as refused:
    answers["session"] = refused.msg
client.remove_session(session)
print(json.dumps(answers))
"""


class Refused(Exception):
    """Status and text of an answer other than 200."""


class Server:
    """One process of `monailabel start_server`."""

    def __init__(self, app, studies, log, **conf):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        command = [PYTHON, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies, "--host", "127.0.0.1"]
        command += ["--port", self.url.rsplit(":")[-1], *(w for item in conf.items() for w in ("--conf", *item))]
        self.log = log
        self.process = subprocess.Popen(
            list(map(str, command)), cwd=log.parent, env=QUIET, stdout=log.open("wb"), stderr=subprocess.STDOUT
        )

    def ask(self, path, *, form=None, body=None):
        """The answer's bytes: to GET, to a form, or to a JSON body."""
        data = urlencode({"params": json.dumps(form)}).encode() if form is not None else None
        data = json.dumps(body).encode() if body is not None else data
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            with urlopen(Request(self.url + path, data, headers), timeout=300) as answer:
                return answer.read()
        except HTTPError as error:
            raise Refused(f"{error.code} {error.read().decode()}") from error

    def wait(self):
        until = time.monotonic() + 240
        while time.monotonic() < until and self.process.poll() is None:
            try:
                return json.loads(self.ask("/info/"))
            except URLError:
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def volume(self, path, folder, **options):
        file = folder / f"{time.monotonic_ns()}.nii.gz"
        file.write_bytes(self.ask(path, **options))
        return nib.load(file)


def save_head(rng, shape, affine, path):
    voxels = np.zeros(shape, dtype=np.float32)
    inside = tuple(slice(side // 4, side - side // 4) for side in shape)
    voxels[inside] = rng.uniform(300, 900, voxels[inside].shape)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def fine_affine():
    """The grid of four times as many voxels a side with the same outer edges."""
    refine = np.diag([0.25, 0.25, 0.25, 1])
    refine[:3, 3] = (1 / 4 - 1) / 2
    return OBLIQUE @ refine


def tiny_weights(conditions, path):
    network = ScoreFusion(["coronal", "sagittal"], conditions=conditions, size="tiny", features=False)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # new networks say zero
                parameter.normal_(std=0.1)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two folders of studies, tiny weights and the overlay that belongs to them."""
    seed = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(2**31))
    print(f"TEST_SEED={seed}")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("label")
    (folder / "studies").mkdir(), (folder / "plain").mkdir()
    for subject, shape, affine in [("scan", COARSE, OBLIQUE), *((f"fine{i}", FINE, fine_affine()) for i in range(2))]:
        save_head(rng, shape, affine, folder / "studies" / f"{subject}_flair.nii.gz")
        save_head(rng, FINE, fine_affine(), folder / "studies" / f"{subject}_t1ce.nii.gz")
    save_head(rng, FINE, fine_affine(), folder / "studies" / "alone_t1ce.nii.gz")
    (folder / "studies" / "splits.csv").write_text("case,split\nfine0,train\nfine1,val\n")
    save_head(rng, FINE, fine_affine(), folder / "plain" / "scan_t1ce.nii.gz")
    (folder / "tiny.yaml").write_text("size: tiny\nfeatures: false\npatch: [32, 32, 32]\nprecision: float32\n")
    for conditions in (1, 2):
        tiny_weights(conditions, folder / f"tiny_{conditions}.pt")
    return folder


@pytest.fixture(scope="module")
def servers(place):
    """Our app for low-resolution FLAIR and T1ce to FLAIR, and the stock app for T1ce to FLAIR; they start side by side."""
    stock = place / "monaibundle"
    shutil.copytree(PYTHON.parent.parent / "monailabel" / "sample-apps" / "monaibundle", stock)
    stock_bundle(stock / "model" / "translation", ["task_translation.yaml", str(place / "tiny.yaml")], place / "tiny_1.pt")
    app = place / "bundle" / "scripts" / "integrations" / "label"  # a copy: servers write into the folder of their app
    shutil.copytree(ROOT / "scripts", place / "bundle" / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", place / "bundle" / "configs")
    ours = {"models": "both", "overlays": str(place / "tiny.yaml"), "weights": str(place / "tiny_2.pt")}
    started = [
        Server(app, place / "studies", place / "ours.log", **ours),
        Server(stock, place / "plain", place / "stock.log", models="translation", zoo_source="ngc", sam2="false"),
    ]
    try:
        yield started
    finally:
        for server in started:
            server.process.terminate()
            server.process.wait(30)


@pytest.fixture(scope="module")
def server(servers):
    servers[0].wait()
    return servers[0]


def test_the_model_is_offered_as_no_segmentation_and_with_a_training(server):
    info = server.wait()
    assert [model["type"] for model in info["models"].values()] == ["others"]
    assert list(info["trainers"]) == ["both"]


def test_a_study_becomes_float32_on_the_finer_grid_whose_block_averages_were_measured(server, place, tmp_path):
    wish = {"result_dtype": "uint8", "result_extension": ".nrrd"}  # of the Slicer plugin
    result = server.volume("/infer/both?image=scan_t1ce&output=image", tmp_path, form=wish)
    assert (result.shape, result.get_data_dtype()) == (FINE, np.float32)
    np.testing.assert_allclose(result.affine, fine_affine(), atol=1e-5)  # float32 in the header
    blocks = result.get_fdata().reshape(12, 4, 10, 4, 11, 4).mean(axis=(1, 3, 5))
    measured = nib.load(place / "studies" / "scan_flair.nii.gz").get_fdata()
    np.testing.assert_allclose(blocks, measured, atol=0.5)  # of 900; single precision


def test_what_is_doubted_of_a_volume_comes_with_it(server):
    told = json.loads(server.ask("/infer/both?image=scan_flair&output=json", form={}))
    assert any("the weights saw 2 mm" in line for line in told["doubts"])


def test_mean_and_uncertainty_of_two_samples_are_those_of_two_runs(server, tmp_path):
    url = "/infer/both?image=scan_flair&output=image"
    first, second = (server.volume(url, tmp_path, form={"steps": 2, "seed": seed}).get_fdata() for seed in (5, 6))
    mean = server.volume(url, tmp_path, form={"steps": 2, "seed": 5, "samples": 2})
    uncertainty = server.volume("/datastore/label?label=scan_flair&tag=uncertainty", tmp_path)
    assert np.abs(first - second).max() > 1
    np.testing.assert_allclose(mean.get_fdata(), (first + second) / 2, atol=0.01)
    np.testing.assert_allclose(uncertainty.get_fdata(), np.abs(first - second) / np.sqrt(2), atol=0.01)
    np.testing.assert_array_equal(uncertainty.affine, mean.affine)


@pytest.mark.parametrize(
    ("image", "options", "told"),
    [
        ("alone_t1ce", {}, "alone_t1ce.nii.gz: is not the flair and t1ce of a complete study"),
        ("fine0_flair", {}, "fine0_flair.nii.gz: its voxels of .* would become .*; it is fine already"),
        ("scan_flair", {"samples": 2, "steps": 1}, "2 samples of one step are all the same"),
        ("scan_flair", {"weights": "trained"}, "there are no trained weights"),
        ("scan_flair", {"weights": "best"}, "weights best: is not known; choose of shipped, trained"),
        ("scan_flair", {"seed": "$3"}, r"seed \$3: is no whole number"),
        ("scan_flair", {"device": "cpu')"}, "there is no such device"),
        ("nowhere", {}, "nowhere: there is no such image among the studies"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_line(server, image, options, told):
    with pytest.raises(Refused, match=f"^400 .*{told}"):
        server.ask(f"/infer/both?image={image}&output=json", form=options)


def test_what_the_server_does_not_offer_is_told_in_one_line(server):
    with pytest.raises(Refused, match=r"^400 .*no model 'nothing'"):
        server.ask("/infer/nothing?image=scan_flair&output=json", form={})
    with pytest.raises(Refused, match=r"^400 .*no such strategy 'nothing'"):
        server.ask("/activelearning/nothing", body={})


def test_the_client_of_monai_label_finds_sends_saves_and_asks(server, place, tmp_path):
    """Its own class, in its own environment: next sample, an upload, a result as a label, and a session."""
    program = CLIENT.format(url=server.url, folder=str(tmp_path), scan=str(place / "studies" / "scan_t1ce.nii.gz"))
    told = subprocess.run([PYTHON, "-W", "ignore", "-c", program], capture_output=True, text=True, env=QUIET, check=False)
    assert told.returncode == 0, told.stderr[-2000:]
    answers = json.loads(told.stdout.splitlines()[-1])
    assert (place / "studies" / f"{answers['next']}.nii.gz").is_file()
    assert answers["uploaded"] == "new_t1ce" and (place / "studies" / "new_t1ce.nii.gz").is_file()
    sent, kept = (nib.load(tmp_path / name) for name in ("result.nii.gz", "label.nii.gz"))
    assert sent.shape == FINE
    np.testing.assert_array_equal(sent.get_fdata(), kept.get_fdata())
    assert "put a study's files into --studies" in answers["session"]  # two conditions, and one file was sent


def test_the_stock_app_translates_as_the_bundle_does(servers, place, tmp_path):
    servers[1].wait()
    result = servers[1].volume("/infer/translation?image=scan_t1ce&output=image", tmp_path, form={})
    bundle = place / "monaibundle" / "model" / "translation"
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.yaml"]
    options = ["--dataset_dir", str(place / "plain"), "--output_dir", str(tmp_path)]
    subprocess.run([*command, *options], cwd=bundle, env=QUIET, check=True, capture_output=True)
    expected = nib.load(tmp_path / "scan" / "scan_pred.nii.gz")
    np.testing.assert_allclose(result.affine, expected.affine, atol=1e-5)
    np.testing.assert_allclose(result.get_fdata(), expected.get_fdata(), atol=0.01)


def test_a_training_from_the_client_gives_weights_that_inference_takes(server, tmp_path):
    server.ask("/train/both", body={"max_epochs": 1, "steps_per_epoch": 2})
    status = {"status": "SUBMITTED"}
    until = time.monotonic() + 300
    while status["status"] in ("SUBMITTED", "RUNNING") and time.monotonic() < until:
        time.sleep(1)
        status = json.loads(server.ask("/train/"))
    assert status["status"] == "DONE", "\n".join(status["details"])
    assert any("step 2/2" in line for line in status["details"])
    url = "/infer/both?image=scan_flair&output=image"
    shipped, trained = (server.volume(url, tmp_path, form={"weights": name}).get_fdata() for name in ("shipped", "trained"))
    assert np.abs(shipped - trained).max() > 1
