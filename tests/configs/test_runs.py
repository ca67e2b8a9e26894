# SPDX-License-Identifier: Apache-2.0
"""Every training config for one step, and what comes of it."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run
from skimage.metrics import peak_signal_noise_ratio
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.measurement import BlockAverage, Task
from scripts.networks.weights import export_weights
from scripts.running.workflow import config_files

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns of code in configs, at every run
SIDES = (32, 36, 40)
PLANES = ["coronal", "sagittal", "axial"]
ONE_STEP = {"max_epochs": 1, "steps_per_epoch": 1, "val_interval": 1, "val_cases": 1, "batch_size": 1}
# Stored as left-posterior-superior with permuted axes, so that nothing works by luck.
FINE = np.array([[0, -1.0, 0, 17.5], [0, 0, -1.25, -8], [1.5, 0, 0, 3], [0, 0, 0, 1]])
REFINEMENT = np.diag([0.25, 0.25, 0.25, 1]) + np.array([[0, 0, 0, -0.375]] * 3 + [[0] * 4])  # voxel edges stay put


def launch(run_id, *names, **overrides):
    """`monai.bundle run` in this process, with networks for tests and logging left to pytest."""
    files = [str(file) for file in config_files(names[0], names[1:])]
    defaults = {"size": "tiny", "precision": "float32", "logging_file": False}
    if "ckpt_dir" in overrides:  # a training, which would keep volumes in runs/
        defaults["cache_dir"] = str(Path(overrides["ckpt_dir"], "cache"))
    run(run_id=run_id, config_file=files, **{**defaults, **{key.replace("__", "#"): value for key, value in overrides.items()}})


def draw(rng, sides=SIDES, low=0.0):
    """A bright box of noise with nothing around it."""
    voxels = np.full(sides, low, dtype=np.float32)
    box = tuple(slice(side // 4, side - side // 4) for side in sides)
    voxels[box] += rng.uniform(300, 900, voxels[box].shape).astype(np.float32)
    return voxels


def save(path, voxels, affine=FINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def block_averages(voxels):
    h, w, d = (side // 4 for side in voxels.shape)
    return voxels.astype(np.float64).reshape(h, 4, w, 4, d, 4).mean(axis=(1, 3, 5))


@pytest.fixture(scope="module")
def rng():
    seed = int(np.random.SeedSequence().entropy % 2**31)
    print(f"TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory, rng):
    folder = tmp_path_factory.mktemp("data")
    for case in range(3):
        for modality in ("t1", "t1ce", "flair"):
            save(folder / f"case{case}_{modality}.nii.gz", draw(rng))
        save(folder / f"case{case}_seg.nii.gz", (draw(rng) > 700).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def planes(data, runs):
    """Folder with a coronal and a sagittal denoiser."""
    for plane in ("coronal", "sagittal"):
        train_2d(data, runs / plane, plane=plane)
    return runs / "{plane}" / "latest.pt"


@pytest.fixture(scope="module")
def fusion(data, runs, planes):
    given = {**ONE_STEP, "patch": [24, 24, 24], "dataset_dir": str(data), "plane_weights": str(planes)}
    launch("training", "train_3d", **given, ckpt_dir=str(runs / "fusion"))
    return runs / "fusion" / "latest.pt"


@pytest.fixture(scope="module")
def weights(runs, fusion):
    export_weights(str(fusion), str(runs / "model.pt"))
    return runs / "model.pt"


@pytest.fixture(scope="module")
def translation(data, runs):
    train_2d(data, runs / "translation", "task_translation")
    return runs / "translation" / "latest.pt"


def train_2d(data, folder, *overlays, **overrides):
    wanted = {**ONE_STEP, "patch": [24, 24], "dataset_dir": str(data), "ckpt_dir": str(folder), **overrides}
    launch("training", "train_2d", *overlays, **wanted)


def check_training(folder):
    """A checkpoint that was trained, and events with a loss and pictures; returns both."""
    checkpoint = torch.load(folder / "latest.pt", weights_only=True)
    assert checkpoint["iteration"] == 1
    network, averaged = checkpoint["objects"]["network"], checkpoint["objects"]["ema"]
    assert network.keys() == averaged.keys()
    assert any(not torch.equal(network[key], averaged[key]) for key in network)
    assert all(value.isfinite().all() for value in network.values())
    scalars, images = {}, {}
    for file in folder.glob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        scalars |= {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
        images |= {tag: events.Images(tag)[-1] for tag in events.Tags()["images"]}
    assert np.isfinite(scalars["loss"])
    assert np.isfinite(scalars["psnr"])
    assert sorted(images) == ["axial/1", "coronal/1", "sagittal/1"]
    return checkpoint["objects"], scalars, images


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_a_plane_trains(plane, planes):
    objects, _, images = check_training(planes.parent.parent / plane)
    assert {key.split(".")[0] for key in objects["network"]} == {"members"}
    assert all(image.width % 3 == 0 for image in images.values())  # input, result and truth side by side


def test_a_slab_of_five_slices_trains(data, tmp_path):
    train_2d(data, tmp_path, plane="axial", slab=5)
    check_training(tmp_path)


def test_the_published_method_trains_with_the_loss_of_the_authors(data, tmp_path):
    train_2d(data, tmp_path, "method_published", loss_function__l1=5, loss_function__l2=150, batch_size=4)
    _, scalars, _ = check_training(tmp_path)
    # a new network says zero: 5 mean |epsilon| + 150 mean epsilon^2 over 4 x 24 x 24 normal numbers, six deviations
    assert scalars["loss"] == pytest.approx(5 * (2 / np.pi) ** 0.5 + 150, abs=6 * 150 * (2 / 2304) ** 0.5)


def test_translation_trains_between_contrasts(translation):
    check_training(translation.parent)


def test_both_at_once_trains_with_two_conditions(data, tmp_path):
    train_2d(data, tmp_path, "task_both")
    check_training(tmp_path)


def test_the_fusion_trains_and_leaves_the_planes_as_they_were(fusion, planes):
    objects, _, _ = check_training(fusion.parent)
    for index, plane in enumerate(("coronal", "sagittal")):
        alone = torch.load(str(planes).format(plane=plane))["objects"]["ema"]
        for key, value in alone.items():
            assert torch.equal(objects["network"][key.replace("members.0", f"members.{index}")], value)


def test_phase_2_goes_on_from_phase_1_with_features(data, planes, tmp_path):
    both = {**ONE_STEP, "dataset_dir": str(data), "plane_weights": str(planes)}
    first, second = tmp_path / "1", tmp_path / "2"
    launch("training", "train_3d", "phase_1", **both, patch=[24, 24, 24], ckpt_dir=str(first))
    goes_on = {"fusion_weights": str(first / "latest.pt"), "ckpt_dir": str(second)}
    launch("training", "train_3d", "phase_2", **both, **goes_on, learning_rate=0.0)
    before, after = (torch.load(folder / "latest.pt", weights_only=True)["objects"] for folder in (first, second))
    assert all(torch.equal(after["network"][key], value) for key, value in before["ema"].items())
    assert {key.split(".")[2] for key in after["network"].keys() - before["ema"].keys()} == {"alignments"}


def test_the_train_config_of_monai_label_runs(data, planes, tmp_path):
    given = {**ONE_STEP, "patch": [24, 24, 24], "dataset_dir": str(data), "plane_weights": str(planes)}
    launch("run", "train", **given, ckpt_dir=str(tmp_path))
    check_training(tmp_path)


@pytest.mark.parametrize("samples", [1, 2])
def test_super_resolution_reproduces_the_coarse_scan_on_the_finer_grid(samples, weights, tmp_path, rng, monkeypatch):
    coarse = rng.uniform(100, 900, (8, 9, 10)).astype(np.float32)
    coarse[:, :2], coarse[7], coarse[..., 0] = 0, 0, 0
    affine = FINE @ np.diag([4, 4, 4, 1])
    save(tmp_path / "coarse" / "anna_t1.nii.gz", coarse, affine)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    paths = {"dataset_dir": "../coarse", "output_dir": "../out", "ckpt_path": str(weights)}
    launch("inference", "inference", "sampler_fast", **paths, steps=samples, samples=samples)
    image = nib.load(tmp_path / "out" / "anna" / "anna_pred.nii.gz")
    assert image.shape == SIDES
    np.testing.assert_allclose(image.affine, affine @ REFINEMENT, atol=1e-5)  # written in float32
    pred = image.get_fdata()
    np.testing.assert_allclose(block_averages(pred), coarse, rtol=1e-5, atol=1e-5 * coarse.max())
    assert pred.std() > np.repeat(coarse, 64).std()  # more than the blocks
    written = {path.name for path in (tmp_path / "out" / "anna").iterdir()}
    assert written == {"anna_pred.nii.gz", *(["anna_uncertainty.nii.gz"] if samples > 1 else [])}
    if samples > 1:
        uncertainty = nib.load(tmp_path / "out" / "anna" / "anna_uncertainty.nii.gz")
        np.testing.assert_array_equal(uncertainty.affine, image.affine)
        deviation = uncertainty.get_fdata()
        assert deviation.shape == SIDES
        assert deviation.min() >= 0
        assert deviation.max() > 0
        np.testing.assert_allclose(deviation[pred == 0], 0, atol=1e-5 * coarse.max())  # the background is known
    assert not list((tmp_path / "elsewhere").iterdir())
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert Task.of(record) == Task(["t1"], "t1", BlockAverage((4, 4, 4)))
    assert record["sources"] == {"anna": {"image": [str(tmp_path / "elsewhere" / "../coarse/anna_t1.nii.gz")]}}
    assert record["model"] == {"file": "model.pt", "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert (list(record["cases"]), record["failures"], record["system"]["nfe"]) == (["anna"], {}, samples)


def test_translation_returns_on_the_grid_of_its_input(translation, tmp_path, rng):
    sides = (33, 38, 41)  # multiples of nothing
    save(tmp_path / "in" / "ben" / "t1ce.nii.gz", draw(rng, sides))
    single = {"planes": ["coronal"], "fusion": False, "ckpt_path": str(translation)}
    launch("run", "inference", "task_translation", **single, dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"))
    image = nib.load(tmp_path / "out" / "ben" / "ben_pred.nii.gz")
    assert image.shape == sides
    np.testing.assert_allclose(image.affine, FINE, atol=1e-6)
    outside = nib.load(tmp_path / "in" / "ben" / "t1ce.nii.gz").get_fdata() == 0
    assert np.ptp(image.get_fdata()[outside]) == 0
    assert np.ptp(image.get_fdata()) > 0


def test_evaluation_measures_what_it_wrote(data, weights, tmp_path):
    paths = {"dataset_dir": str(data), "output_dir": str(tmp_path), "ckpt_path": str(weights)}
    launch("evaluating", "evaluate", **paths, max_cases=1, mask="seg")
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["n"], list(results["cases"]), results["failures"]) == (1, ["case2"], {})
    assert (results["system"]["nfe"], results["system"]["size"]) == (1, "tiny")
    pred, truth = (nib.load(path).get_fdata() for path in (tmp_path / "case2" / "case2_pred.nii.gz", data / "case2_t1.nii.gz"))
    psnr = peak_signal_noise_ratio(truth, pred, data_range=np.ptp(truth))
    assert results["mean"]["psnr"] == pytest.approx(psnr, abs=1e-3)  # volumes are float32
    assert results["cases"]["case2"]["psnr"] == results["mean"]["psnr"]
    tumour = nib.load(data / "case2_seg.nii.gz").get_fdata() > 0
    assert results["mean"]["mae_tumour"] == pytest.approx(np.abs(pred - truth)[tumour].mean() / np.ptp(truth), rel=1e-4)
    np.testing.assert_allclose(block_averages(pred), block_averages(truth), rtol=1e-5, atol=1e-5 * truth.max())


def test_predictions_on_disk_are_measured_alike_and_tell_where_they_are_from(data, weights, tmp_path):
    paths = {"dataset_dir": str(data), "ckpt_path": str(weights), "split": "val"}
    inferred, again = tmp_path / "inferred", tmp_path / "again"
    launch("evaluating", "evaluate", "uncertainty", **paths, output_dir=str(inferred), samples=3)
    launch("evaluating", "evaluate", "predictions", **paths, output_dir=str(again), predictions=str(inferred))
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (inferred, again))
    assert second["system"] == {**first["system"], "predictions": str(inferred)}
    assert second["truths"] == first["truths"] and first["truths"].keys() == first["cases"].keys()
    assert second["task"] == first["task"]
    for key, value in second["mean"].items():
        assert value == pytest.approx(first["mean"][key], rel=1e-4, abs=1e-5), key
    assert first["mean"].keys() - second["mean"].keys() == {"psnr_std", "ssim_std"}  # samples are not kept
    assert first["calibration"]["actual"] == pytest.approx(second["calibration"]["actual"], rel=1e-3)
    error = nib.load(inferred / "case2" / "case2_error.nii.gz").get_fdata()
    assert error.mean() == pytest.approx(first["mean"]["mae"], rel=1e-4)


def test_the_quality_of_a_translation_does_not_depend_on_the_units_of_its_input(translation, tmp_path, rng):
    t1ce, flair = draw(rng), draw(rng)
    psnr = []
    for unit in (1, 10):
        save(tmp_path / str(unit) / "a_t1ce.nii.gz", unit * t1ce)
        save(tmp_path / str(unit) / "a_flair.nii.gz", flair)
        paths = {"dataset_dir": str(tmp_path / str(unit)), "output_dir": str(tmp_path / "out"), "ckpt_path": str(translation)}
        launch("evaluating", "evaluate", "task_translation", **paths, split="all", planes=["coronal"], fusion=False)
        psnr.append(json.loads((tmp_path / "out" / "results.json").read_text())["mean"]["psnr"])
    assert psnr[0] == pytest.approx(psnr[1], abs=0.01)
