# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandFlipd
from surroundings import needs

from scripts.data import LoadVolumesd, PrepareTrainingd, cache
from scripts.data.cache import VolumeCache
from scripts.errors import BadInput
from scripts.measurement import BlockAverage

SIDES = (24, 36, 24)


def draw_case(path, rng):
    voxels = np.zeros(SIDES, dtype=np.float32)
    voxels[4:-4, 6:-6, 4:-4] = rng.uniform(0.7, 1.2, [SIDES[0] - 8, SIDES[1] - 12, SIDES[2] - 8])
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return {"case": "a", "image": [str(path)], "label": str(path)}


def preparing(factors=(4, 4, 4), smooth=True):
    average = BlockAverage(factors, smooth)
    return Compose([LoadVolumesd(degradation=average, simulate=True), PrepareTrainingd(average)])


def ones(case):
    return {"image": torch.ones(2, 5, 5, 5), "label": torch.ones(1, 5, 5, 5)}


def refuse(case):
    raise AssertionError("was prepared again")


@pytest.fixture
def case(tmp_path, rng):
    return draw_case(tmp_path / "a_t1.nii", rng)


@pytest.fixture
def kept(tmp_path, case):
    """A function that makes a cache of one case; one a call, as a process would."""

    def kept(transform=None):
        return VolumeCache([case], transform or preparing(), tmp_path / "cache")

    return kept


@pytest.fixture
def names(tmp_path):
    """A function that lists all there is in the folder."""
    return lambda: sorted(path.name for path in tmp_path.glob("cache/*"))


def check_equal(volumes, wanted):
    assert volumes.keys() == wanted.keys()
    assert all(torch.equal(volumes[key], wanted[key]) for key in wanted)


def test_volumes_are_kept_to_half_precision_with_mask_and_background_exact(kept, case):
    volumes, prepared = kept()[0], preparing()(case)
    for key in ("image", "label"):
        torch.testing.assert_close(volumes[key].float(), prepared[key], rtol=2**-11, atol=2**-24)
        assert ((volumes[key] == -1) >= (prepared[key] == -1)).all()
    assert torch.equal(volumes["image"][-1].float(), prepared["image"][-1])


def test_a_case_is_prepared_once_for_all(kept, monkeypatch):
    first = kept()[0]
    for transform in (preparing(), pickle.loads(pickle.dumps(preparing()))):
        later = kept(transform)
        monkeypatch.setattr(later, "transform", refuse)
        check_equal(later[0], first)


@pytest.mark.parametrize("settings", [{"factors": (4, 4, 2)}, {"smooth": False}, {"factors": (4, 2, 4)}], ids=str)
def test_another_preparation_is_another_file(settings, kept, names):
    first = kept()[0]
    other = kept(preparing(**settings))[0]
    assert len(names()) == 2
    assert not torch.equal(first["image"], other["image"])
    check_equal(kept()[0], first)


def test_another_version_of_a_case_is_another_file(kept, case, names, rng):
    first = kept()[0]
    status = Path(case["label"]).stat()
    draw_case(case["label"], rng)  # as many bytes
    os.utime(case["label"], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not torch.equal(kept()[0]["label"], first["label"])
    assert len(names()) == 2


def test_the_order_of_the_conditions_counts(case, tmp_path, rng):
    other = draw_case(tmp_path / "a_t2.nii", rng)["label"]
    cases = [{**case, "image": images} for images in ([case["label"], other], [other, case["label"]])]
    volumes = VolumeCache(cases, Compose([LoadVolumesd(), PrepareTrainingd()]), tmp_path / "cache")
    assert torch.equal(volumes[0]["image"][0], volumes[1]["image"][1])
    assert not torch.equal(volumes[0]["image"][0], volumes[1]["image"][0])


def test_a_change_of_our_code_is_another_file(kept, names, tmp_path, monkeypatch):
    kept()[0]
    (tmp_path / "more.py").write_text("SPAN = 1.4")
    monkeypatch.setattr(cache, "CODE", (*cache.CODE, tmp_path / "more.py"))
    kept()[0]
    assert len(names()) == 2


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "truncated": truncate,
    "empty": lambda file: file.write_bytes(b""),
    "something else": lambda file: file.write_bytes(b"something else"),
    "other tensors": lambda file: torch.save({"label": torch.ones(1)}, file),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_again_with_one_warning(damage, kept, names, tmp_path, caplog):
    whole = {key: value.clone() for key, value in kept()[0].items()}
    (name,) = names()
    damage(tmp_path / "cache" / name)
    check_equal(kept()[0], whole)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert name in caplog.text
    check_equal(kept()[0], whole)
    assert len(caplog.records) == 1


@pytest.fixture
def halfway(monkeypatch):
    """A function that lets something happen when half of the next file is written."""

    def halfway(happens):
        write = Path.write_bytes

        def write_slowly(path, content):
            monkeypatch.setattr(Path, "write_bytes", write)
            path.write_bytes(bytes(content)[: len(content) // 2])
            happens()
            return path.write_bytes(content)

        monkeypatch.setattr(Path, "write_bytes", write_slowly)

    return halfway


def test_two_processes_may_prepare_a_case_at_once(kept, names, halfway, caplog):
    second = []
    halfway(lambda: second.append(kept()[0]))
    check_equal(kept()[0], second[0])
    assert len(names()) == 1
    assert not caplog.records


def test_a_kill_leaves_no_half_file(kept, names, halfway, caplog):
    def interrupt():
        raise KeyboardInterrupt

    halfway(interrupt)
    with pytest.raises(KeyboardInterrupt):
        kept()[0]
    assert not names()
    kept()[0]
    assert not caplog.records


def test_a_copy_for_another_process_holds_no_volumes(kept, monkeypatch):
    original = kept()
    volumes = original[0]
    content = pickle.dumps(original)
    assert len(content) < volumes["label"].nbytes / 4
    copy = pickle.loads(content)
    monkeypatch.setattr(copy, "transform", refuse)
    check_equal(copy[0], volumes)


def test_the_folder_may_be_deleted_while_volumes_are_in_use(kept, tmp_path):
    used = kept()
    before = {key: value.clone() for key, value in used[0].items()}
    shutil.rmtree(tmp_path / "cache")
    check_equal(used[0], before)
    check_equal(kept()[0], before)


@needs("Linux", Path("/proc/self/fd").is_dir())  # it counts files as Linux lists them
def test_files_are_mapped_and_none_stays_open(tmp_path):
    files = [tmp_path / str(number) for number in range(30)]
    for file in files:
        file.touch()
    volumes = VolumeCache([{"image": file, "label": file} for file in files], ones, tmp_path / "cache")
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = [volumes[number] for number in range(30)]
    assert len(list(Path("/proc/self/fd").iterdir())) < before + len(held)
    assert Path("/proc/self/maps").read_text().count(str(tmp_path / "cache")) == len(held)


def test_a_random_transform_is_refused(case, tmp_path):
    with pytest.raises(BadInput, match="RandFlipd is random"):
        VolumeCache([case], Compose([preparing(), RandFlipd(("image", "label"))]), tmp_path)


def test_a_missing_file_is_named(kept, case):
    Path(case["label"]).unlink()
    with pytest.raises(BadInput, match=r"a_t1\.nii: there is no such file"):
        kept()[0]


def test_a_folder_that_cannot_be_written_is_named(kept, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(BadInput, match=r"cache/\w+\.pt: cannot be written \(File exists\); .* --cache_dir"):
        kept()[0]
