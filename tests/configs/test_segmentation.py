# SPDX-License-Identifier: Apache-2.0
"""train_segmentation.yaml and evaluate_downstream.yaml on small drawn cases."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.networks.nets import SwinUNETR
from test_bad_input import refusal  # noqa: F401  a fixture
from test_config_files import parser
from test_runs import draw, launch, save

from scripts.errors import BadInput
from scripts.networks.weights import export_weights
from scripts.training import AugmentedPatch, LabelRegionsd, load_segmentation

pytestmark = pytest.mark.filterwarnings("ignore")
SIDES = (40, 36, 44)
TWO_STEPS = {"max_epochs": 2, "steps_per_epoch": 1, "batch_size": 1, "val_interval": 2, "val_cases": 1}


@pytest.fixture(scope="module")
def rng():
    seed = int(np.random.SeedSequence().entropy % 2**31)
    print(f"TEST_SEED={seed}")
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory, rng):
    """Five cases of three modalities with a bright box in the head of flair, the tumour; the last four validate."""
    folder = tmp_path_factory.mktemp("data")
    names = ["alone", "good", "grid", "nan", "none"]
    for name in names:
        seg = np.zeros(SIDES, dtype=np.uint8)
        seg[tuple(slice(first, first + 9) for first in rng.integers(11, 18, 3))] = 1
        for modality in ("t1", "t1ce", "flair"):
            save(folder / f"{name}_{modality}.nii.gz", draw(rng, SIDES) + (np.float32(500) * seg if modality == "flair" else 0))
        save(folder / f"{name}_seg.nii.gz", seg)
    rows = [f"{name},{'train' if name == 'alone' else 'val'}" for name in names]
    (folder / "splits.csv").write_text("\n".join(["case,split", *rows]))
    return folder


def train(data, folder, **overrides):
    wanted = {**TWO_STEPS, "dataset_dir": str(data), "ckpt_dir": str(folder), **overrides}
    launch("training", "train_segmentation", **wanted)
    return torch.load(folder / "latest.pt", weights_only=True)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    train(data, folder)
    export_weights(str(folder / "latest.pt"), str(folder / "segmentation.pt"), half=False)
    return folder


def test_a_segmentation_trains_and_resumes_to_the_bit(data, trained, tmp_path):
    assert train(data, tmp_path, train__trainer__max_epochs=1)["iteration"] == 1  # as if stopped after the first epoch
    whole, broken = torch.load(trained / "latest.pt", weights_only=True), train(data, tmp_path, val_interval=5)
    assert whole["iteration"] == broken["iteration"] == 2
    for name in ("network", "ema"):
        for key, value in whole["objects"][name].items():
            assert value.isfinite().all()
            assert torch.equal(value, broken["objects"][name][key]), key
    moved = [key for key, value in whole["objects"]["network"].items() if not torch.equal(value, whole["objects"]["ema"][key])]
    assert moved


@pytest.fixture
def evaluate(data, trained, tmp_path):
    """A function that runs evaluate_downstream.yaml, and returns its exit code and what it wrote."""

    def evaluate(*overlays, **overrides):
        paths = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out")}
        wanted = {**paths, "segmentation_weights": str(trained / "segmentation.pt"), **overrides}
        code = 0
        try:
            launch("evaluating", "evaluate_downstream", *overlays, **wanted)
        except SystemExit as end:
            code = end.code
        return code, json.loads((tmp_path / "out" / "downstream.json").read_text())

    return evaluate


def predict(data, folder, case, change=lambda flair: flair):
    """Its own flair, changed, as the prediction of a case."""
    flair = nib.load(data / f"{case}_flair.nii.gz")
    save(folder / case / f"{case}_pred.nii.gz", change(flair.get_fdata(dtype=np.float32)), flair.affine)


def holed(flair):
    flair[1, 2, 3] = np.nan
    return flair


def test_bad_predictions_are_named_and_the_rest_is_measured(data, evaluate, tmp_path, caplog):
    predict(data, tmp_path / "copy", "good")
    predict(data, tmp_path / "copy", "nan", holed)
    predict(data, tmp_path / "copy", "grid", lambda flair: flair[:-1])
    (tmp_path / "copy" / "run.json").write_text(json.dumps({"system": {"nfe": 3}, "versions": {}}))
    with caplog.at_level(logging.INFO):
        code, results = evaluate(predictions=[f"copy={tmp_path / 'copy'}"])
    assert code == 2
    assert list(results["cases"]) == ["good"]
    assert "copy has no" in results["failures"]["none"]
    assert "holds NaN" in results["failures"]["nan"]
    assert "grid_pred.nii.gz is" in results["failures"]["grid"]
    assert all("\n" not in line for line in results["failures"].values())
    mean = results["mean"]
    assert mean["real"]["WT"]["dice_n"] == 1
    assert results["methods"] == {"copy": {"system": {"nfe": 3}}}  # tables need no folder
    assert "failed, as said above and in the results: grid, nan, none" in caplog.text
    assert mean["copy"] == mean["real"]  # what is predicted is the real one
    assert results["recovery"]["copy"]["WT"] in (1.0, None)
    assert (tmp_path / "out" / "downstream.png").read_bytes()[:4] == b"\x89PNG"


def test_without_predictions_the_bounds_are_measured_also_for_a_missing_modality(evaluate):
    code, results = evaluate("downstream_translation", max_cases=1)
    assert (code, list(results["mean"]), results["recovery"]) == (0, ["real", "degraded"], {})
    assert results["system"]["degraded"].startswith("missing")
    assert results["mean"]["real"]["WT"]["dice_n"] == 1


def test_weights_for_other_channels_are_refused_in_one_line(data, trained, tmp_path, refusal):  # noqa: F811
    paths = {"dataset_dir": str(data), "output_dir": str(tmp_path), "segmentation_weights": str(trained / "segmentation.pt")}
    line = refusal("evaluating", "evaluate_downstream", **paths, conditions=["t1", "flair"])
    assert "segmentation.pt: weights of another network" in line
    assert "x3x2x2x2 there and 12x2x2x2x2 here" in line


def test_a_public_checkpoint_of_brats_loads_strictly(tmp_path, rng):
    """As the SwinUNETR checkpoints of BraTS 2021: its score is a NumPy scalar, names may have a prefix."""
    public, ours = SwinUNETR(4, 3, feature_size=12), parser("evaluate_downstream", "regions_brats")
    state = {f"module.{key}": value for key, value in public.state_dict().items()}
    torch.save({"epoch": 300, "best_acc": np.float64(rng.uniform()), "state_dict": state}, tmp_path / "model.pt")
    loaded = load_segmentation(ours.get_parsed_content("network_def"), tmp_path / "model.pt")
    assert all(torch.equal(value, public.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert ours["conditions"] == ["flair", "t1ce", "t1", "t2"]
    torch.save({"state_dict": {**state, "module.more": torch.zeros(1)}}, tmp_path / "more.pt")
    with pytest.raises(BadInput, match="1 tensors differ, more is 1 there and missing here"):
        load_segmentation(loaded, tmp_path / "more.pt")


def test_the_published_size_has_the_published_number_of_parameters():
    config = parser("train_segmentation", "regions_brats")
    config["feature_size"] = 48
    network = config.get_parsed_content("network_def")  # a rate of its dropout keeps it from the meta device
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(62.1, abs=0.1)


def test_regions_unite_labels_of_either_convention():
    label = torch.tensor([0, 1, 2, 3, 4.0]).reshape(1, 5, 1, 1)
    regions = LabelRegionsd(parser("train_segmentation", "regions_brats")["regions"])({"label": label})["label"]
    assert regions[..., 0, 0].tolist() == [[0, 1, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize("values", [(255,), (5,), (0.5, -1)], ids=str)
def test_a_map_with_other_labels_than_the_regions_is_no_head_without_a_tumour(values):
    label = torch.zeros(1, 4, 4, 4)
    regions = LabelRegionsd({"WT": [1, 2, 3, 4]})
    assert not regions({"case": "a", "label": label})["label"].any()
    label[0, 0, 0, : len(values)] = torch.tensor(values)
    named = ", ".join(f"{value:g}" for value in sorted(values))
    with pytest.raises(BadInput, match=f"case a: all that its label map marks is {named}, and regions are of 1, 2, 3, 4; give"):
        regions({"case": "a", "label": label})


def test_labels_of_no_region_beside_others_are_background_and_told_once(caplog):
    label = torch.tensor([0, 1, 17, 53.0]).reshape(1, 4, 1, 1)
    regions = LabelRegionsd({"hippocampus": [17, 53]})
    for case in "ab":
        assert regions({"case": case, "label": label})["label"].flatten().tolist() == [0, 0, 1, 1]
    assert caplog.messages == ["case a: 1 of its label map is in none of the regions and counts as background"]


def test_a_patch_depends_on_its_random_numbers_alone_and_keeps_image_and_label_together(rng):
    image = torch.from_numpy(rng.uniform(size=(1, 24, 24, 24)).astype(np.float32))
    config = parser("train_segmentation")
    config["patch"] = [16, 16, 16]
    cut = AugmentedPatch(config.get_parsed_content("train#augmentation"))
    first, again, other = (cut(image, image > 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first["image"].shape == first["label"].shape == (1, 16, 16, 16)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
    inside = first["label"] > 0  # scaling and shifting keep the order of intensities
    assert first["image"][inside].min() > first["image"][~inside].max()
