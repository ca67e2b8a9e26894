# SPDX-License-Identifier: Apache-2.0
"""A clinic's whole head, T1ce to FLAIR, by the weights that ship."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from surroundings import SCANS, needs_scans

from scripts.__main__ import main

PATIENT = "TCGA_DU_7019_19940908"  # of the validation split
HEADS = SCANS / "glioma_head" / PATIENT

pytestmark = needs_scans


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(HEADS / f"{PATIENT}_t1ce.nii.gz", tmp_path / "in")
    return tmp_path


def test_the_result_is_nearer_to_the_flair_than_t1ce_is(folder):
    command = ["restore", str(folder / "in"), "-o", str(folder / "out"), "--task", "translation_head", "--set", "backend=torch"]
    assert main(command) == 0
    (result,) = (folder / "out").rglob("*_pred.nii.gz")
    files = (result, *(HEADS / f"{PATIENT}_{name}.nii.gz" for name in ("t1ce", "flair")))
    made, given, wanted = map(nib.load, files)
    np.testing.assert_array_equal(made.affine, given.affine)
    assert made.shape == given.shape
    head = given.get_fdata() > 0.1 * given.get_fdata().max()
    of_made, of_given = (np.corrcoef(one.get_fdata()[head], wanted.get_fdata()[head])[0, 1] for one in (made, given))
    assert of_made > of_given + 0.05


def test_other_weights_refuse_it_and_name_these(folder, capsys):
    with pytest.raises(SystemExit):
        main(["restore", str(folder / "in"), "-o", str(folder / "out"), "--task", "translation"])
    line = "those of --task translation_head saw such scans, or --force, and do not trust the result"
    assert line in capsys.readouterr().out
    assert not list((folder / "out").rglob("*_pred.nii.gz"))


def test_more_steps_than_one_are_refused(folder, capsys):
    command = ["restore", str(folder / "in"), "-o", str(folder / "out"), "--task", "translation_head", "--steps", "2"]
    assert main(command) == 1
    assert "take --steps 1 or fewer, or --force" in capsys.readouterr().err


def test_other_pixels_are_another_result_to_the_ledger(folder, capsys):
    command = ["restore", str(folder / "in"), "-o", str(folder / "out"), "--task", "translation_head", "--set", "backend=torch"]
    for more, said in (([], ": done in "), ([], "finished before"), (["--set", "pixel_mm=2"], ": done in ")):
        assert main([*command, *more]) == 0
        assert said in capsys.readouterr().out
