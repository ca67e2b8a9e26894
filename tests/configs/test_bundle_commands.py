# SPDX-License-Identifier: Apache-2.0
"""The commands of `monai.bundle` other than `run`."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ckpt_export, create_workflow, onnx_export, verify_metadata, verify_net_in_out

from scripts import bundle_root
from scripts.networks import ScoreFusion
from scripts.running.workflow import config_files

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIGS = Path(bundle_root(), "configs")
INFERENCE, METADATA = str(CONFIGS / "inference.yaml"), str(CONFIGS / "metadata.json")
SCHEMA = Path(__file__).with_name("meta_schema.json")
ALONE = {"planes": ["coronal"], "fusion": False}


@pytest.fixture
def network(awaken):
    """A function that makes a tiny network which says something."""

    def network(**options):
        return awaken(ScoreFusion(**{"size": "tiny", **options})).eval()

    return network


def save_weights(network, path):
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "name", "run_id"),
    [
        ("train", "train", "run"),
        ("train", "train_3d", "training"),
        ("train", "train_2d", "training"),
        ("infer", "inference", "run"),
        ("infer", "evaluate", "evaluating"),
    ],
)
def test_workflows_have_every_property_that_monai_asks_for(kind, name, run_id, network, tmp_path, draw_head):
    for case in range(2):
        voxels = draw_head(32, 32, 32)[0, 0].numpy()
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"case{case}_t1.nii.gz")
    overrides = {"dataset_dir": str(tmp_path), "size": "tiny", "logging_file": False}
    if kind == "train":
        for plane in ("coronal", "sagittal"):
            save_weights(network(**{**ALONE, "planes": [plane]}), tmp_path / f"{plane}.pt")
        overrides |= {"ckpt_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")}
        overrides |= {} if name == "train_2d" else {"plane_weights": str(tmp_path / "{plane}.pt")}
    else:
        overrides["ckpt_path"] = save_weights(network(), tmp_path / "model.pt")
        overrides["output_dir"] = str(tmp_path / "out")
    workflow = create_workflow(
        config_file=[str(file) for file in config_files(name)], workflow_type=kind, run_id=run_id, **overrides
    )
    assert workflow.check_properties() == []
    assert workflow.bundle_root == bundle_root()
    assert isinstance(workflow.network_def, ScoreFusion)
    assert workflow.version == json.loads(Path(METADATA).read_text())["version"]


def test_the_metadata_holds_what_the_specification_requires():
    verify_metadata(meta_file=METADATA, filepath=str(SCHEMA))


@pytest.mark.parametrize("field", ["changelog", "network_data_format#outputs#pred#channel_def", "numpy_version"])
def test_metadata_without_a_required_field_are_refused(field, tmp_path):
    metadata = json.loads(Path(METADATA).read_text())
    *parents, last = field.split("#")
    place = metadata
    for parent in parents:
        place = place[parent]
    del place[last]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=f"'{last}' is a required property"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(SCHEMA))


def test_the_network_has_the_inputs_and_outputs_of_the_metadata():
    verify_net_in_out(net_id="network_def", meta_file=METADATA, config_file=INFERENCE)


@pytest.mark.parametrize(
    "options",
    [{}, {"features": False}, {**ALONE, "slab": 5}],
    ids=["fusion", "no features", "one plane of five slices"],
)
def test_an_exported_torchscript_needs_no_code_of_ours_and_says_the_same(options, network, tmp_path, seed):
    eager = network(**options)
    ckpt_file = save_weights(eager, tmp_path / "model.pt")
    files = {"filepath": str(tmp_path / "model.ts"), "ckpt_file": ckpt_file, "meta_file": METADATA, "config_file": INFERENCE}
    ckpt_export(net_id="network_def", **files, size="tiny", **options)
    scripted = torch.jit.load(tmp_path / "model.ts")
    x, x_t, gamma = torch.randn(2, 5, 9, 10, 11), torch.randn(2, 1, 9, 10, 11), torch.tensor([0.1, 0.9])
    with torch.no_grad(), torch.jit.optimized_execution(False):  # which takes longer than the network
        torch.testing.assert_close(scripted(x, x_t, gamma), eager(x, x_t, gamma))
        torch.testing.assert_close(scripted(x), eager(x))


def test_an_exported_onnx_says_the_same(network, tmp_path, seed):
    eager = network(planes=["coronal"])
    ckpt_file = save_weights(eager, tmp_path / "model.pt")
    files = {"filepath": str(tmp_path / "model.onnx"), "ckpt_file": ckpt_file, "meta_file": METADATA, "config_file": INFERENCE}
    onnx_export(net_id="network_def", **files, size="tiny", planes=["coronal"], input_shape=[1, 5, 8, 8, 8])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    x = torch.randn(1, 5, 8, 8, 8)
    (said,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(said, eager(x).numpy(), rtol=1e-3, atol=1e-4)  # float32, summed in another order
