# SPDX-License-Identifier: Apache-2.0
"""A DICOM folder in, a DICOM series out, through the bundle's own command."""

import json
import re
from pathlib import Path

import dicom_series
import nibabel as nib
import numpy as np
import pytest
import torch
from highdicom import get_volume_from_series, imread
from highdicom.pm import ParametricMap
from monai.bundle import run
from pydicom import dcmread

from scripts import bundle_root
from scripts.networks import ScoreFusion
from scripts.report import report

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns of code in configs, at every run


def infer(folder, network, *overlays, **overrides):
    torch.save(network.state_dict(), folder / "weights.pt")
    given = {
        "size": "tiny",
        "precision": "float32",
        "logging_file": False,
        "ckpt_path": str(folder / "weights.pt"),
        **overrides,
    }
    files = [str(Path(bundle_root(), "configs", f"{name}.yaml")) for name in ("inference", *overlays)]
    run(run_id="inference", config_file=files, dataset_dir=str(folder / "in"), output_dir=str(folder / "out"), **given)
    (case,) = (place for place in (folder / "out").iterdir() if place.is_dir())
    return case


def draw_head(rng, shape):
    voxels = np.zeros(shape, dtype=np.uint16)
    box = tuple(slice(side // 4, side - side // 4) for side in shape)
    voxels[box] = rng.integers(300, 900, voxels[box].shape)
    return voxels


def ras(volume):
    """Voxels (columns, rows, slices) and affine of a highdicom volume, on the closest canonical axes."""
    affine = volume.get_affine("RAS")[:, [2, 1, 0, 3]]
    image = nib.as_closest_canonical(nib.Nifti1Image(volume.array.transpose(2, 1, 0).astype(np.float64), affine))
    return image.get_fdata(), image.affine


def test_super_resolution_answers_a_classic_series_with_a_finer_one_that_keeps_the_measurement(tmp_path, rng, awaken):
    affine, coarse = dicom_series.random_affine(rng, (4.0, 4.4, 5.0)), draw_head(rng, (6, 5, 7))
    sources = dicom_series.write_series(tmp_path / "in", coarse, affine, SeriesDescription="T1 MPRAGE")
    network = awaken(ScoreFusion(["coronal", "sagittal"], size="tiny"))
    case = infer(tmp_path, network, "sampler_fast", steps=2, samples=2)
    files = sorted((case / "pred").iterdir())
    voxels, found = ras(get_volume_from_series([imread(path) for path in files]))
    refined = np.diag([0.25, 0.25, 0.25, 1.0])
    refined[:3, 3] = -0.375
    fine = nib.as_closest_canonical(nib.Nifti1Image(np.zeros([4 * side for side in coarse.shape]), affine @ refined))
    assert voxels.shape == fine.shape
    np.testing.assert_allclose(found, fine.affine, rtol=0, atol=1e-4)
    measured = nib.as_closest_canonical(nib.Nifti1Image(coarse, affine)).get_fdata()
    h, w, d = measured.shape
    averages = voxels.reshape(h, 4, w, 4, d, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(averages, measured, rtol=0, atol=np.ptp(voxels) / 65535 + 1e-2)  # a step of 16 bits
    first, source = dcmread(files[0]), dcmread(sources[0])
    assert (first.StudyInstanceUID, first.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert "super-resolution 4x4x4 of t1" in first.DerivationDescription
    report(str(tmp_path / "out"))
    told = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".html") and path.stem != "identifiers"]
    assert "input: " not in (case / "report.html").read_text()  # its series was found
    assert len(told) == 3 and not [path for path in told if re.search("phantom|20200102", path.read_text())]
    deviation, place = ras(ParametricMap.from_file(case / "uncertainty.dcm").get_volume())
    np.testing.assert_allclose(place, found, rtol=0, atol=1e-4)
    written = nib.as_closest_canonical(nib.load(case / f"{case.name}_uncertainty.nii.gz"))
    np.testing.assert_allclose(deviation, written.get_fdata(), rtol=1e-6)
    assert deviation.max() > 0


def test_two_enhanced_series_give_an_enhanced_one_that_names_both(tmp_path, rng, awaken):
    affine, shape = dicom_series.random_affine(rng, (1.0, 1.1, 1.3)), (18, 20, 22)
    same = {"StudyInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.3.5"}
    sources = [
        dicom_series.write_enhanced(
            tmp_path / "in" / f"{word}.dcm", draw_head(rng, shape), affine, SeriesDescription=word, SeriesNumber=number, **same
        )
        for number, word in enumerate(("t1", "t2"), start=1)
    ]
    network = awaken(ScoreFusion(["coronal"], conditions=2, size="tiny", fusion=False))
    task = {"conditions": ["t1", "t2"], "target": "flair", "block": [1, 1, 1], "planes": ["coronal"], "fusion": False}
    case = infer(tmp_path, network, "task_translation", "sampler_one_step", steps=20, **task)
    (file,) = (case / "pred").iterdir()
    voxels, found = ras(imread(file).get_volume())
    wanted = nib.as_closest_canonical(nib.Nifti1Image(np.zeros(shape), affine))
    assert voxels.shape == wanted.shape
    np.testing.assert_allclose(found, wanted.affine, rtol=0, atol=1e-4)
    how = dcmread(file).SharedFunctionalGroupsSequence[0].DerivationImageSequence[0]
    named = {item.ReferencedSOPInstanceUID for item in how.SourceImageSequence}
    assert named == {dcmread(path).SOPInstanceUID for path in sources}
    assert [item.CodeValue for item in how.DerivationCodeSequence] == ["123110"]  # not resampled
    assert not (case / "uncertainty.dcm").exists()
    assert "NFE 2, samples 1" in str(how)  # what was made, not what was asked for: a step, and that of the mirror image
    assert json.loads((tmp_path / "out" / "run.json").read_text())["system"]["nfe"] == 2
