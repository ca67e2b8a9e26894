# SPDX-License-Identifier: Apache-2.0
"""What of the application for MONAI Deploy needs no SDK."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from scripts import bundle_root
from scripts.data.advice import default_task
from scripts.errors import BadInput
from scripts.integrations.deploy.bundle import SETTINGS, Bundle
from scripts.networks import ScoreFusion


def bundle(tmp_path, **options):
    settings = tmp_path / "app.yaml"
    settings.write_text(yaml.safe_dump({"bundle": {"configs": ["inference.yaml"], "options": options}}))
    return Bundle(settings, input_dir=str(tmp_path), output_dir=str(tmp_path / "out"), models=str(tmp_path / "models"))


def test_weights_are_found_wherever_a_package_put_the_models_folder(tmp_path):
    weights = tmp_path / "models" / "models" / "model.pt"
    weights.parent.mkdir(parents=True)
    network = ScoreFusion(["axial"], size="tiny", fusion=False)
    torch.save(network.state_dict(), weights)
    loaded = bundle(tmp_path, size="tiny", planes=["axial"], fusion=False).parser.get_parsed_content("network")
    for name, parameter in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], parameter)


def test_absent_weights_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"models: there is no model\.pt in it"):
        bundle(tmp_path)


def test_an_option_that_the_bundle_does_not_have_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"app\.yaml: 'stepps' is not in inference\.yaml"):
        bundle(tmp_path, ckpt_path="model.pt", stepps=3)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, r"app\.yaml: holds no settings of the bundle \(FileNotFoundError"),
        ("bundle: [", r"app\.yaml: holds no settings of the bundle \(ParserError"),
        ("application: {}", r"app\.yaml: holds no settings of the bundle \(KeyError: 'bundle'\)"),
        ("bundle: {configs: [task_translaton.yaml]}", r"task_translaton\.yaml: there is no such config"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_line(content, line, tmp_path):
    settings = tmp_path / "app.yaml"
    if content is not None:
        settings.write_text(content)
    with pytest.raises(BadInput, match=line):
        Bundle(settings, input_dir=str(tmp_path), output_dir=str(tmp_path / "out"), models=str(tmp_path))


def test_volumes_beside_dicom_are_refused_rather_than_answered_in_its_place(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), tmp_path / "scan_t1.nii.gz")
    (tmp_path / "models").mkdir(), (tmp_path / "models" / "model.pt").touch()
    alone = bundle(tmp_path).cases()
    (tmp_path / "slice").write_bytes(b"\0" * 128 + b"DICM")
    assert [case.name for case in alone] == ["scan"]
    with pytest.raises(BadInput, match=r"scan_t1\.nii\.gz and its like would be taken in place of the DICOM beside them"):
        bundle(tmp_path).cases()


def test_the_application_takes_the_scans_that_restore_takes():
    """A clinic's slices are of any thickness; the default of the configs would refuse nearly all."""
    assert yaml.safe_load(SETTINGS.read_text())["bundle"]["configs"] == ["inference.yaml", f"task_{default_task()}.yaml"]


def test_the_package_has_the_version_of_the_bundle():
    metadata = json.loads(Path(bundle_root(), "metadata.json").read_text())
    assert yaml.safe_load(SETTINGS.read_text())["application"]["version"] == metadata["version"]
