# SPDX-License-Identifier: Apache-2.0
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.bundle import run

from scripts import bundle_root
from scripts.data.cases import find_cases
from scripts.data.formats import FORMATS, stem, suffix
from scripts.data.volumes import read_volume
from scripts.errors import BadInput
from scripts.networks import ScoreFusion

IMAGES = {".nii": nib.Nifti1Image, ".nii.gz": nib.Nifti1Image, ".mgh": nib.MGHImage, ".mgz": nib.MGHImage}
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")


def write_itk(path, voxels, affine, *, packed=False):
    """A volume as SimpleITK writes it, from an affine to RAS."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(voxels.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), packed)


@pytest.fixture
def oblique(rng):
    """A turn about a random axis, uneven voxels, first stored axis from right to left."""
    rotation, _ = np.linalg.qr(np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-1.1, 0.9, 2.3]) * np.sign(np.diag(rotation))
    affine[:3, 3] = rng.uniform(-90, 90, 3)
    return affine


def draw(rng, shape=(9, 10, 11)):
    return rng.uniform(0, 900, shape).astype(np.float32)


@pytest.mark.parametrize("ending", [*IMAGES, ".NII.GZ", ".MGZ"])
def test_every_format_gives_voxels_and_place(ending, oblique, tmp_path, rng):
    voxels, path = draw(rng), tmp_path / f"a_t1{ending}"
    IMAGES[ending.lower()](voxels, oblique).to_filename(path)
    volume = read_volume(path)
    truth = nib.as_closest_canonical(nib.Nifti1Image(voxels, oblique))
    np.testing.assert_array_equal(volume[0], truth.get_fdata())
    np.testing.assert_allclose(volume.affine, truth.affine, rtol=0, atol=1e-4)  # mm; headers are float32
    assert volume.meta["grid_shape"] == list(truth.shape)
    assert find_cases(tmp_path, ["t1"]) == [{"case": "a", "image": [str(path)]}]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ITK)
def test_nrrd_and_metaimage_lie_where_itk_writes_them(ending, packed, oblique, tmp_path, rng):
    voxels, path = draw(rng), tmp_path / f"a_t1{ending}"
    write_itk(path, voxels, oblique, packed=packed)
    volume = read_volume(path)
    truth = nib.as_closest_canonical(nib.Nifti1Image(voxels, oblique))
    np.testing.assert_array_equal(volume[0], truth.get_fdata())
    np.testing.assert_allclose(volume.affine, truth.affine, rtol=0, atol=1e-4)  # mm; headers are text of 6 digits or more
    assert json.loads(volume.meta["doubts"]) == []
    cases = find_cases(tmp_path, ["t1"])
    assert cases == [{"case": "a", "image": [str(path)]}]
    assert not cases.files["left_out"]  # the data of a header of its own are used as well


@pytest.mark.parametrize("ending", ITK)
def test_damage_to_packed_voxels_of_itk_is_noticed(ending, oblique, tmp_path, rng):
    write_itk(tmp_path / f"a{ending}", draw(rng), oblique, packed=True)
    (data,) = [path for path in tmp_path.iterdir() if path.stat().st_size > 2000]
    whole = data.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:2000] + bytes([whole[2000] ^ 4]) + whole[2001:]):
        data.write_bytes(content)
        with pytest.raises(BadInput, match=rf"a\{ending}: cannot be read as (NRRD|MetaImage) .*; copy or convert it again"):
            read_volume(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", [".img", ".IMG", ".img.gz"])
def test_a_pair_is_one_volume_by_either_name(ending, oblique, tmp_path, rng):
    voxels = draw(rng)
    nib.save(nib.Nifti1Pair(voxels, oblique), tmp_path / f"a_t1{ending.lower()}")
    header = tmp_path / f"a_t1{ending.lower().replace('img', 'hdr')}"
    (tmp_path / f"a_t1{ending.lower()}").rename(tmp_path / f"a_t1{ending}")
    cases = find_cases(tmp_path, ["t1"])
    assert cases == [{"case": "a", "image": [str(tmp_path / f"a_t1{ending}")]}]
    assert cases.files["used"] == 2
    assert find_cases(header, ["t1"]) == cases
    truth = nib.as_closest_canonical(nib.Nifti1Image(voxels, oblique))
    np.testing.assert_array_equal(read_volume(cases[0]["image"][0])[0], truth.get_fdata())


def test_analyze_knows_no_left_and_right(tmp_path, rng):
    nib.save(nib.AnalyzeImage(draw(rng), np.diag([-2.0, 2, 2, 1])), tmp_path / "a.img")
    volume = read_volume(tmp_path / "a.img")
    assert "left and right are unknown" in volume.meta["doubts"]
    assert volume.meta["xform_codes"] == "[0, 0]"


@pytest.mark.parametrize("ending", [".mgh", ".mgz"])
@pytest.mark.parametrize("placed", [True, False])
def test_a_freesurfer_file_that_says_nothing_of_its_place_is_doubted(placed, ending, tmp_path, rng):
    nib.MGHImage(draw(rng), np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "whole.mgh")
    content = bytearray((tmp_path / "whole.mgh").read_bytes())
    content[28:30] = int(placed).to_bytes(2, "big")  # goodRASFlag
    (tmp_path / f"a{ending}").write_bytes(content if ending == ".mgh" else gzip.compress(content))
    volume = read_volume(tmp_path / f"a{ending}")
    said = "goodRASFlag 0" in volume.meta["doubts"] and "taken as 1 mm" in volume.meta["doubts"]
    assert (said, volume.meta["xform_codes"]) == (not placed, "[1, 1]" if placed else "[0, 0]")


def test_an_image_without_its_header_is_named(tmp_path, rng):
    nib.save(nib.Nifti1Pair(draw(rng), np.eye(4)), tmp_path / "a.img")
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(BadInput, match=r"a\.img: has no header beside it, a\.hdr; copy it there"):
        read_volume(tmp_path / "a.img")


@pytest.mark.parametrize("line", ["space: left-posterior-superior", 'space units: "mm" "mm" "mm"', "TransformMatrix = "])
def test_itk_headers_that_lack_a_place_or_use_other_units_are_doubted(line, oblique, tmp_path, rng):
    path = tmp_path / ("a.mha" if "=" in line else "a.nrrd")
    write_itk(path, draw(rng), np.diag([-1.0, -1, 1, 1]))
    content = path.read_bytes()
    if "units" in line:
        path.write_bytes(content.replace(b"kinds:", b'space units: "um" "um" "um"\nkinds:', 1))
        with pytest.raises(BadInput, match=r"its header is in um; convert it to millimetres"):
            read_volume(path)
        return
    start = content.index(line.encode())
    stop = content.index(b"\n", start) + 1
    path.write_bytes(content[:start] + (b"space dimension: 3\n" if path.suffix == ".nrrd" else b"") + content[stop:])
    assert "left and right are unknown" in read_volume(path).meta["doubts"]


def test_colours_are_no_volume(tmp_path, rng):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(draw(rng, (9, 9, 9, 3)), isVector=True), str(tmp_path / "a.mha"))
    with pytest.raises(BadInput, match="holds vector of 32-bit float values; convert it to one real number a voxel"):
        read_volume(tmp_path / "a.mha")


def test_two_formats_of_one_volume_claim_one_place(tmp_path, rng):
    for ending in (".nii.gz", ".mgz"):
        IMAGES[ending](draw(rng), np.eye(4)).to_filename(tmp_path / f"a_t1{ending}")
    with pytest.raises(BadInput, match=r"a_t1\.mgz and .*a_t1\.nii\.gz are both t1; move one away"):
        find_cases(tmp_path, ["t1"])


@pytest.mark.filterwarnings("ignore")  # MONAI warns of code in configs
def test_the_result_of_an_mgz_is_the_nifti_that_the_nifti_of_it_gives(oblique, tmp_path, rng, awaken):
    voxels = np.zeros((6, 7, 8), dtype=np.float32)
    voxels[1:-1, 1:-1, 1:-1] = rng.uniform(300, 900, (4, 5, 6))
    (tmp_path / "in").mkdir()
    for case, ending in (("free", ".mgz"), ("nifti", ".nii.gz")):
        IMAGES[ending](voxels, oblique).to_filename(tmp_path / "in" / f"{case}_t1{ending}")
    torch.save(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "weights.pt")
    config = str(Path(bundle_root(), "configs", "inference.yaml"))
    places = {
        "dataset_dir": str(tmp_path / "in"),
        "output_dir": str(tmp_path / "out"),
        "ckpt_path": str(tmp_path / "weights.pt"),
        "trained_mm": 0,  # new weights are for voxels of any size
    }
    run(run_id="inference", config_file=config, size="tiny", steps=1, precision="float32", logging_file=False, **places)
    found, wanted = (nib.load(tmp_path / "out" / case / f"{case}_pred.nii.gz") for case in ("free", "nifti"))
    assert np.ptp(wanted.get_fdata()) > 0
    np.testing.assert_array_equal(found.get_fdata(), wanted.get_fdata())
    np.testing.assert_allclose(found.affine, wanted.affine, rtol=0, atol=1e-4)  # mm; headers are float32
    assert json.loads((tmp_path / "out" / "run.json").read_text())["failures"] == {}


def test_a_file_that_is_cut_short_or_of_no_format_is_named(tmp_path, rng):
    IMAGES[".mgz"](draw(rng), np.eye(4)).to_filename(tmp_path / "whole.mgz")
    content = (tmp_path / "whole.mgz").read_bytes()
    (tmp_path / "cut.mgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=r"cut\.mgz: cannot be read as FreeSurfer MGH .*; copy or convert it again"):
        read_volume(tmp_path / "cut.mgz")
    (tmp_path / "a_t1.raw").write_bytes(content)
    with pytest.raises(BadInput, match=rf"a_t1\.raw: no volume has such a name; convert it to one of {', '.join(FORMATS)}"):
        read_volume(tmp_path / "a_t1.raw")


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0), b"<html>404</html>"])
def test_what_is_too_short_for_a_header_is_called_so(content, tmp_path):
    (tmp_path / "a_t1.nii.gz").write_bytes(content)
    with pytest.raises(BadInput, match=r"a_t1\.nii\.gz: holds \d+ bytes, too few for a volume"):
        read_volume(tmp_path / "a_t1.nii.gz")


def test_a_header_without_its_image_is_named(tmp_path):
    (tmp_path / "a_t1.hdr").write_bytes(bytes(348))
    with pytest.raises(BadInput, match=r"a_t1\.hdr, a header whose image is not beside it"):
        find_cases(tmp_path, ["t1"])


def test_a_stem_is_a_name_without_the_suffix_of_a_volume():
    names = ["a/b.c_t1.nii.gz", "b.NII", "c.mgz", "d.gz", "e.txt", "nii"]
    assert [stem(name) for name in names] == ["b.c_t1", "b", "c", "d.gz", "e.txt", "nii"]
    assert [suffix(name) for name in names] == [".nii.gz", ".nii", ".mgz", "", "", ""]
