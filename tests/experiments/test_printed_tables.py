# SPDX-License-Identifier: Apache-2.0
"""Tables that documents show, of small volumes."""

import json
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from scripts.experiments import any_table, combined_table, unseen_table
from scripts.networks import ScoreFusion

sys.path.append(str(Path(__file__).parents[1] / "data" / "dicom"))
import dicom_series

pytestmark = pytest.mark.filterwarnings("ignore")


def head(rng, *sides):
    """Something smooth with nothing around it."""
    inner = [side - 12 for side in sides]
    return np.pad(gaussian_filter(rng.uniform(0, 4000, inner), 1.5), 6).astype(np.float32)


def save(voxels, path, mm=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([mm] * 3 + [1.0])), path)
    return str(path)


@pytest.fixture
def tiny(awaken, tmp_path):
    torch.save(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "tiny.pt")
    return str(tmp_path / "tiny.pt")


def test_gains_of_task_any_are_of_the_psnr_that_is_noted(rng, tmp_path, monkeypatch, capsys):
    """By the shipped weights, with the specialist beside them."""
    for case in "abc":
        save(head(rng, 32, 32, 32), tmp_path / "t1" / f"{case}_t1.nii.gz")
    (tmp_path / "t1" / "splits.csv").write_text("case,split\na,train\nb,val\nc,val\n")
    monkeypatch.setattr(any_table, "FOLDERS", (("boxes", "t1", "t1"),))
    monkeypatch.setattr(any_table, "MEASURED", {"4 x 4 x 4": {"simulated": [4, 4, 4]}})
    monkeypatch.setattr(any_table.logging, "disable", lambda level: None)  # which would be for all tests that follow
    any_table.main([str(tmp_path), "--json", str(tmp_path / "table.json")])
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    means = {name: np.mean(values) for name, values in row["psnr"].items()}
    assert {name: len(values) for name, values in row["psnr"].items()} == {"cubic": 2, "any": 2, "specialist": 2}
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"| boxes | 4 x 4 x 4 | 2 | {means['cubic']:.2f} | {means['any'] - means['cubic']:+.2f} (")
    assert f"| {means['specialist'] - means['cubic']:+.2f} (" in line


def test_three_scans_are_worth_more_than_one_without_any_network(rng, tiny, tmp_path, monkeypatch, capsys):
    save(head(rng, 36, 40, 36), tmp_path / "data" / "a_t1.nii.gz")
    (tmp_path / "data" / "splits.csv").write_text("case,split\na,val\n")
    settings = ["size=tiny", "precision=float32", "specialists=null"]
    monkeypatch.setattr(
        combined_table, "combine", partial(combined_table.combine, ckpt_path=tiny, settings=settings, force=True)
    )
    monkeypatch.setattr("sys.argv", ["table", str(tmp_path / "data"), "--output", str(tmp_path / "out")])
    combined_table.main()
    title, row, mean = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[-3:])
    values = dict(zip(title, row, strict=True))
    assert row[1:] == mean[1:] and values["subject"] == "a"
    assert float(values["three scans, without networks"]) > float(values["one scan, cubic"])


def test_what_becomes_of_inputs_is_counted_by_task(rng, tmp_path, monkeypatch, capsys):
    """Noise is like nothing that weights saw."""
    noise = save(rng.normal(500, 100, (40, 44, 40)).astype(np.float32), tmp_path / "noise.nii", mm=2.0)
    cases = [{"t1": noise, "t1ce": noise}] * 2
    counts, line = unseen_table.judged("super_resolution_thick_slice", cases)
    assert sum(counts.values()) == 2 and counts["inside"] == 0 and line
    monkeypatch.setattr(unseen_table, "kinds", lambda data, folder: [("noise", cases)])
    monkeypatch.setattr(unseen_table, "TASKS", ("super_resolution_thick_slice", "both"))
    monkeypatch.setattr(unseen_table.logging, "disable", lambda level: None)
    unseen_table.main(str(tmp_path))
    told = " / ".join(str(counts[key]) for key in ("inside", "doubted", "refused"))
    assert capsys.readouterr().out.splitlines()[-1] == f"| noise | 2 | {told} | - |"


def test_kinds_of_input_are_what_their_names_say(rng, tmp_path):
    data, folder = tmp_path / "data", tmp_path / "made"
    folder.mkdir()
    save(head(rng, 24, 28, 20), data / "t1" / "a_t1.nii.gz")
    save(head(rng, 24, 28, 20), data / "whole_head" / "b_t1.nii.gz")
    for modality in ("t1", "t1ce", "flair"):
        save(head(rng, 24, 28, 20), data / "glioma" / f"c_{modality}.nii.gz", mm=2.0)
        save(head(rng, 24, 28, 20) + 5, data / "glioma_head" / f"d_{modality}.nii.gz")  # what air shows
    for name, case in (("t1", "a"), ("glioma", "c")):
        (data / name / "splits.csv").write_text(f"case,split\n{case},val\n")
    dicom_series.write_series(
        data / "dicom" / "glioma_ge_study", dicom_series.random_voxels(rng), np.eye(4), SeriesDescription="T1 post"
    )
    loop = nib.Nifti1Image(rng.uniform(0, 900, (10, 12, 8, 16)).astype(np.float32), np.eye(4))
    (data / "cine").mkdir()
    nib.save(loop, data / "cine" / "short_axis_cine.nii.gz")
    kinds = dict(unseen_table.kinds(data, folder))
    assert all(kinds.values()), "every kind has cases"

    def read(kind, number=0):
        return nib.load(kinds[kind][number]["t1ce"])

    brain = nib.load(data / "glioma" / "c_t1ce.nii.gz")
    finer, half = read("the same brains' t1ce, resampled to 1 mm"), read("the same brains' t1ce, upper half alone")
    assert finer.shape == (48, 56, 40) and finer.header.get_zooms() == (1, 1, 1)
    np.testing.assert_array_equal(half.get_fdata(), brain.get_fdata()[:, :, 10:])
    without_air = read("the same heads' t1ce, air set to 0").get_fdata()
    assert without_air[0, 0, 0] == 0 and without_air[12, 14, 10] > 5
    np.testing.assert_array_equal(read("heart, thick slices", 3).get_fdata(), loop.get_fdata()[..., 15])
    assert kinds["the same heads: flair and t1ce"][0].keys() == {"flair", "t1ce"}
