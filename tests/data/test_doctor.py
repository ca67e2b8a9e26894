# SPDX-License-Identifier: Apache-2.0
import json
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts import bundle_root
from scripts.__main__ import main
from scripts.data import LoadVolumesd
from scripts.data.cases import find_cases
from scripts.data.doctor import doctor
from scripts.data.specialists import ChooseWeightsd
from scripts.errors import BadInput
from scripts.limits import limits_of
from scripts.measurement import AsScanned

sys.path.insert(0, str(Path(__file__).parent / "dicom"))
from dicom_series import random_affine, random_voxels, write_series


@pytest.fixture
def write(tmp_path, rng):
    affine = random_affine(rng)

    def write(number, description, affine=affine, **tags):
        tags = {"StudyInstanceUID": "1.2.3", "SeriesNumber": number, "SeriesDescription": description, **tags}
        return write_series(tmp_path / str(number), random_voxels(rng), affine, **tags)

    return write


def test_every_series_is_listed_with_its_use_or_what_is_wrong(tmp_path, write, capsys):
    write(1, "3-plane loc")
    write(2, "t1", ImageType=["DERIVED", "SECONDARY", "MPR"])
    write(3, "t1 tse")
    write(4, "flair", skip=(2,))
    (tmp_path / "x.dcm").write_bytes(b"")
    assert main(["doctor", str(tmp_path), "--task", "t1"]) == 0
    out = capsys.readouterr().out
    for line in (
        "case phantom_20200102: 4 DICOM series",
        "12x10x8 voxels of 1 x 1.2 x 3 mm: is a localizer; not used unless series_rules names it",
        "t1 (by its description, derived: only where no original is)",
        "series 4 flair lacks 1 slice: 0002.dcm and 0004.dcm are 6 mm apart, the others 3 mm; send the whole series again",
        "x.dcm: is not DICOM",
        "case phantom_20200102: t1 is series 3 t1 tse",
        "1 of 1 cases can be used",
    ):
        assert line in out


def test_a_refused_file_is_told_once(tmp_path, write, capsys, caplog):
    write(3, "t1 tse")
    (tmp_path / "x.dcm").write_bytes(b"")
    assert main(["doctor", str(tmp_path), "--task", "t1"]) == 0
    assert capsys.readouterr().out.count("x.dcm") == 1 and "x.dcm" not in caplog.text


def test_nothing_usable_ends_with_code_1_and_one_line(tmp_path, write, capsys):
    write(4, "flair", skip=(2,))
    assert main(["doctor", str(tmp_path), "--task", "flair"]) == 1
    assert "error: case phantom_20200102: series 4 flair lacks 1 slice" in capsys.readouterr().err


def test_a_rule_is_tried_out(tmp_path, write, capsys):
    write(1, "t1 ax")
    write(2, "t1 sag")
    assert main(["doctor", str(tmp_path), "--task", "t1"]) == 1
    assert main(["doctor", str(tmp_path), "--task", "t1", "--rule", "t1", "sag"]) == 0
    assert "t1 is series 2 t1 sag" in capsys.readouterr().out


def test_conditions_on_two_grids_are_not_usable_unless_they_are_resampled(tmp_path, write, capsys, rng):
    write(1, "t1")
    write(2, "flair", random_affine(rng))
    assert main(["doctor", str(tmp_path), "--task", "t1", "flair"]) == 1
    said = capsys.readouterr()
    assert "0 of 1 cases can be used" in said.out
    assert "; add --resample, or --register where the head moved" in said.err
    doctor(tmp_path, ["t1", "flair"], resample=True)
    out = capsys.readouterr().out
    assert "series 2 flair will be resampled onto the first" in out and "1 of 1 cases can be used" in out


def test_dicom_beside_nifti_files_is_said_to_be_unused(tmp_path, write, rng, capsys):
    write(1, "t1")
    assert main(["doctor", str(tmp_path), "--task", "t1"]) == 0
    assert "DICOM is not used" not in capsys.readouterr().out
    nib.save(nib.Nifti1Image(rng.normal(size=(9, 8, 7)), np.eye(4)), tmp_path / "a_t1.nii.gz")
    assert main(["doctor", str(tmp_path), "--task", "t1"]) == 0
    told = capsys.readouterr()
    assert "volume files form cases, such as a, so DICOM is not used" in told.out and "DICOM" not in told.err  # once
    assert main(["doctor", str(tmp_path), "--task", "flair"]) == 1
    assert "so DICOM is not used" in capsys.readouterr().out


def test_a_folder_of_nifti_files_is_examined_too(tmp_path, rng, capsys):
    for name, shape in (("a_t1", (9, 8, 7)), ("b_t1", (9, 8, 2))):
        nib.save(nib.Nifti1Image(rng.normal(size=shape), np.eye(4)), tmp_path / f"{name}.nii.gz")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", str(tmp_path), "--task", "t1"])
    assert ended.value.code == 2
    out = capsys.readouterr().out
    assert "case a: t1 is" in out and "case b cannot be used: " in out and "at least 5 voxels a side" in out
    (tmp_path / "a_t1.nii.gz").unlink()
    assert main(["doctor", str(tmp_path), "--task", "t1"]) == 1


@pytest.mark.parametrize("kind", ["nothing", "DICOM", "NIfTI"])
def test_it_answers_at_once_and_imports_nothing_that_computes(kind, tmp_path, write):
    if kind == "DICOM":
        write(0, "t1")
    if kind == "NIfTI":
        voxels = np.arange(729, dtype=np.float32).reshape(9, 9, 9)
        nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4.0, 4.0, 1.0])), tmp_path / "a_t1.nii.gz")
    ours = "import sys; from scripts.__main__ import main; main(['doctor', sys.argv[1], '--task', 't1']); print(*sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", ours, tmp_path]
    ended = subprocess.run(command, cwd=bundle_root(), capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "no case with t1" in ended.stderr if kind == "nothing" else "1 of 1 cases can be used" in ended.stdout
    assert not {"torch", "monai", "highdicom", "ignite", "matplotlib"} & set(ended.stdout.split())
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5  # of computing: a busy machine may wait


def test_voxels_are_read_and_their_damage_and_doubts_told(tmp_path, rng, capsys):
    voxels = rng.uniform(1, 9, (9, 8, 7)).astype(np.float32)
    for name in ("a_t1.nii.gz", "b_t1.nii.gz"):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
    damaged = bytearray((tmp_path / "a_t1.nii.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 16
    (tmp_path / "a_t1.nii.gz").write_bytes(damaged)
    voxels[0], voxels[:, 0], voxels[:, :, 0], voxels[-1], voxels[:, -1], voxels[:, :, -1] = [np.nan] * 6
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "b_t1.nii.gz")
    with pytest.raises(SystemExit):
        main(["doctor", str(tmp_path), "--task", "t1"])
    out = capsys.readouterr().out
    assert "case a cannot be used: " in out and "cannot be read as NIfTI" in out
    assert "t1: its background is NaN; taken as 0" in out


def test_a_study_that_cannot_be_used_is_a_refused_case_and_not_the_end(tmp_path, write):
    write(1, "t1", skip=(2,))
    with pytest.raises(BadInput, match="lacks 1 slice"):
        find_cases(tmp_path, ["t1"])
    (case,) = find_cases(tmp_path, ["t1"], refused=True)
    assert "lacks 1 slice" in case["image"][0].problem


def test_the_doctor_says_what_was_measured_to_be_wrong_with_the_weights_of_a_task(tmp_path, rng, capsys):
    voxels = np.zeros((40, 40, 40), dtype=np.float32)
    voxels[8:-8, 8:-8, 8:-8] = rng.uniform(300, 900, (24, 24, 24))
    nib.save(nib.Nifti1Image(voxels, np.diag([2, 2, 2, 1])), tmp_path / "anna_t1ce.nii.gz")
    caveat = limits_of(Path(bundle_root(), "models", "translation.pt")).caveat
    doctor(tmp_path, ["translation"], force=True)
    assert caveat and caveat in capsys.readouterr().out
    doctor(tmp_path, ["t1ce"])
    assert caveat not in capsys.readouterr().out


def test_the_doctor_says_what_would_be_assumed_of_slices(tmp_path, rng, capsys):
    nib.save(nib.Nifti1Image(random_voxels(rng, (32, 32, 9)), np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "a_t1.nii.gz")
    assert main(["doctor", str(tmp_path)]) == 0
    assert "t1: does not say how thick its slices are: taken as 5 mm without gaps" in capsys.readouterr().out
    (tmp_path / "a_t1.json").write_text('{"SliceThickness": 0.4}')
    assert main(["doctor", str(tmp_path)]) == 0
    assert "t1: has slices of 0.4 mm every 5 mm, which cannot be" in capsys.readouterr().out


def test_the_doctor_takes_what_restore_takes_of_contrast_and_slices(tmp_path, rng, capsys):
    nib.save(nib.Nifti1Image(random_voxels(rng, (32, 32, 9)), np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "a_FLAIR.nii.gz")
    assert main(["doctor", str(tmp_path)]) == 1
    assert main(["doctor", str(tmp_path), "--contrast", "FLAIR", "--thickness", "2"]) == 0
    said = capsys.readouterr()
    assert "flair: has slices of 2 mm every 5 mm: 60% of it was not measured" in said.out
    assert main(["doctor", str(tmp_path), "--contrast", "flair", "--spacing", "0.5"]) == 1
    assert "would be cut into 10; --spacing 0.63 is the finest" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path), "--task", "both", "--contrast", "flair"]) == 1
    assert main(["doctor", str(tmp_path), "--task", "both", "--spacing", "2"]) == 1
    assert main(["doctor", str(tmp_path), "--task", "flair", "--thickness", "2"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: --contrast flair: task both makes flair of flair and t1ce; leave it out",
        "error: --spacing 2.0: task both has none; --task any takes it",
        "error: --thickness: is of a task; flair is none",
    ]


@pytest.mark.parametrize(
    ("sides", "shape"), [((1.5, 1.5, 3.8), (40, 36, 22)), ((3.8, 1.5, 1.5), (22, 40, 36)), ((3, 3, 3), (24, 26, 22))]
)
def test_the_doctor_and_a_run_say_the_same_of_a_scan_unlike_those_that_the_weights_saw(sides, shape, tmp_path, rng, capsys):
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    voxels = np.where(sum(axis**2 for axis in axes) < 2, rng.uniform(300, 900, shape), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([*sides, 1.0])), tmp_path / "a_t1.nii.gz")
    doctor(tmp_path)
    told = [line.strip() for line in capsys.readouterr().out.splitlines() if "unlike what the weights saw" in line]
    loaded = LoadVolumesd(["image"], AsScanned())({"case": "a", "image": str(tmp_path / "a_t1.nii.gz")})
    choose = ChooseWeightsd(Path(bundle_root(), "models", "any.pt"), AsScanned(), ["super_resolution"])
    assert told and told == json.loads(choose(loaded)["image"].meta["unseen"])


@pytest.mark.parametrize(
    ("task", "sides", "turned", "line"),
    [
        ("any", (4, 4, 5), False, "12x10x9 voxels of 4 x 4 x 4 mm"),  # 7 slices of 5 mm are 35 mm
        ("any", (4, 4, 5), True, "9x12x10 voxels of 4 x 4 x 4 mm"),
        ("super_resolution", (4, 4, 4), False, "48x40x28 voxels of 1 x 1 x 1 mm"),
        ("t1", (4, 4, 4), False, ""),
    ],
)
def test_the_doctor_says_what_comes_out_along_the_axes_of_the_file(task, sides, turned, line, tmp_path, rng, capsys):
    image = nib.Nifti1Image(random_voxels(rng, (12, 10, 7)), np.diag([*map(float, sides), 1.0]))
    if turned:
        image = image.as_reoriented(np.array([[1, -1], [2, 1], [0, 1]]))
    nib.save(image, tmp_path / "a_t1.nii.gz")
    doctor(tmp_path, [task])
    said = [told.strip() for told in capsys.readouterr().out.splitlines() if "comes out as" in told]
    assert said == ([f"comes out as {line}"] if line else [])
