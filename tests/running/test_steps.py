# SPDX-License-Identifier: Apache-2.0
import doctest
import logging
import re
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data.meta_tensor import MetaTensor
from monai.transforms import LoadImage

import scripts
from scripts import bundle_root, restore
from scripts.__main__ import main
from scripts.errors import BadInput
from scripts.running import progress

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_path_an_image_a_meta_tensor_and_an_array_give_what_the_command_writes(file, image, weights, tmp_path):
    options = {"ckpt_path": str(weights), "size": "tiny", "precision": "float32"}
    settings = ["--set", "size=tiny", "--set", "precision=float32"]
    assert main(["restore", str(file), "-o", str(tmp_path / "out"), "--weights", str(weights), *settings]) == 0
    wanted = nib.load(tmp_path / "out" / "anna" / "anna_pred.nii.gz")
    loaded = LoadImage(image_only=True)(file)
    for given in ((file,), (image,), (loaded,), (loaded[None],), (image.get_fdata(), image.affine)):
        result = restore(*given, **options)
        assert result.shape == (36, 32, 40)
        assert np.array_equal(result.get_fdata(), wanted.get_fdata())
        assert np.array_equal(result.affine, wanted.affine)


def test_nothing_is_left_on_disk(image, weights, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    restore(image, ckpt_path=str(weights), size="tiny")
    assert not list((tmp_path / "temporary").iterdir())


def test_the_log_says_how_far_it_is_while_a_case_is_computed(image, weights, monkeypatch, capsys):
    """As MONAI Deploy shows it: a clinic's slices take minutes."""
    monkeypatch.setattr(progress, "PERIOD", 0.01)  # s
    restore(image, ckpt_path=str(weights), size="tiny")
    assert re.search(r"case image: \d+%, \d+ of \d+ slices, [01] of 1 fusion", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("given", "options", "line"),
    [
        ((np.ones((9, 9, 9)),), {}, "an array needs its affine"),
        ((np.ones((9, 9, 9)), np.eye(4)), {}, "every voxel is 1"),
        (("anna.nii.gz", np.eye(4)), {}, "an affine was given beside an image that has its own"),
        ((MetaTensor(np.ones((2, 9, 9, 9))),), {}, "a MetaTensor of 2x9x9x9 is not one volume; give (1, H, W, D)"),
        (("nowhere.nii.gz",), {}, "nowhere.nii.gz: there is no such file"),
        (("nowhere.nii.gz",), {"task": "both"}, "task both: needs flair and t1ce, not 1 images"),
        (("nowhere.nii.gz",), {"stepz": 2}, "'stepz' is not in inference.yaml"),
    ],
    ids=["no affine", "constant", "two affines", "two channels", "no file", "too few", "unknown option"],
)
def test_what_cannot_be_used_is_one_line(given, options, line):
    with pytest.raises(BadInput) as raised:
        restore(*given, **options)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_lines_of_the_documentation_run(file, image, tmp_path, monkeypatch):
    """docs/python.md as it stands, with the weights that ship."""
    (lines,) = re.findall(r"```pycon\n(.*?)```", Path(bundle_root(), "docs", "python.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine @ np.diag([1, 0.25, 0.25, 1])), "anna_thick_t1.nii.gz")
    monkeypatch.setitem(sys.modules, "score_fusion", scripts)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # the log goes to where results are expected
    example = doctest.DocTestParser().get_doctest(lines, {}, "python.md", None, 0)
    told = []
    # The names of errors begin with that of the package, which is not installed here.
    doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(example, out=told.append, clear_globs=False)
    assert not told, "".join(told)
    assert example.globs["thick"].shape == (36, 8, 10)  # the first axis of the file runs from feet to head
    assert np.array_equal(nib.load("anna_restored.nii.gz").get_fdata(), example.globs["restored"].get_fdata())
