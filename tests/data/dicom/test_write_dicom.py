# SPDX-License-Identifier: Apache-2.0
"""What is written is read by programs that are not ours; what a source holds beyond the whitelist must not get out."""

import json
import shutil
import subprocess
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import NamedTuple

import dicom_series
import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_readers import READERS, read_pydicom
from highdicom.pm import ParametricMap
from monai.data import MetaTensor
from pydicom import dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, ParametricMapStorage
from surroundings import needs_dciodvfy

from scripts.data import Provenance, SaveVolumed
from scripts.errors import BadInput
from scripts.measurement import BlockAverage, Task

SECRET = "MustNotGetOut"
TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}  # value representations that can hold a name
CODE = {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"}
KEPT = {
    "PatientID": "id-7", "PatientName": "Müller^Jürgen", "PatientBirthDate": "19610203", "PatientSex": "F", "StudyID": "s3",
    "StudyDescription": "Schädel", "AccessionNumber": "acc-9", "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "by hand", "BodyPartExamined": "HEAD", "LossyImageCompression": "01",
    "LossyImageCompressionRatio": "10", "LossyImageCompressionMethod": "ISO_10918_1",
}  # fmt: skip
# Said of the study, too, and left as they are.
KEPT_ALSO = {"SpecificCharacterSet", "PatientPosition", "PositionReferenceIndicator", "ReferringPhysicianName", "Manufacturer",
             "ManufacturerModelName", "IssuerOfPatientID", "LongitudinalTemporalInformationModified"}  # fmt: skip
KINDS = ["classic", "enhanced"]


class Source(NamedTuple):
    kind: str
    folder: Path
    affine: np.ndarray


class Case:
    """A result on a grid 4 times as fine as its source, of which it has a copy, and what was written of it."""

    def __init__(self, source, folder, rng):
        self.kind, self.folder, self.out, self.source_affine = source.kind, folder, folder / "out" / "a", source.affine
        self.sources = sorted(shutil.copytree(source.folder, folder / "source").iterdir())
        refined = np.diag([0.25, 0.25, 0.25, 1.0])
        refined[:3, 3] = -0.375
        self.affine = self.source_affine @ refined
        self.voxels = rng.uniform(-3, 900, (20, 24, 16)).astype(np.float32)
        self.deviation = rng.uniform(0, 0.5, self.voxels.shape).astype(np.float32)

    @property
    def series(self):
        return sorted((self.out / "pred").iterdir())

    @property
    def written(self):
        return [*self.series, self.out / "uncertainty.dcm"]

    @property
    def first(self):
        return dcmread(self.series[0])

    def volume(self, voxels, **meta):
        meta = {"dicom_files": json.dumps([str(path) for path in self.sources]), "source_affine": self.source_affine, **meta}
        return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(self.affine), meta=meta)

    def save(self, **volumes):
        weights = self.folder / "some.pt"
        weights.write_bytes(b"weights")
        provenance = Provenance(
            "some", str(weights), task=Task(["t1"], "t1", BlockAverage((4, 4, 4))), nfe=2, samples=3, seed=5
        )
        keys = ["pred", "uncertainty", "interval"]
        SaveVolumed(keys, self.folder / "out", suffixes=keys, provenance=provenance)({"case": "a", **volumes})

    def save_both(self):
        self.save(pred=self.volume(self.voxels), uncertainty=self.volume(self.deviation))
        return self


def fill(dataset, kept):
    """Write the canary into every text that the standard knows, but those that are kept, and into a private one."""
    for tag, (representation, multiplicity, _, _, keyword) in DicomDictionary.items():
        if tag >= 0x00080000 and representation in TEXTS and multiplicity == "1" and keyword not in kept:
            dataset.add_new(tag, representation, SECRET)
    dataset.private_block(0x0019, "SECRET MAKER", create=True).add_new(0x01, "LO", SECRET)


def write_source(kind, folder, affine, rng):
    """A series full of what must not get out, at every place where it could be."""
    right_handed = affine.copy()
    if np.linalg.det(affine[:3, :3]) < 0:
        right_handed[:3, 2] *= -1
    voxels = dicom_series.random_voxels(rng, (5, 6, 4))
    if kind == "classic":
        paths = dicom_series.write_series(folder, voxels, right_handed)
    else:
        paths = [dicom_series.write_enhanced(folder / "1.dcm", voxels, right_handed)]
    for path in paths:
        dataset = dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.file_meta.SourceApplicationEntityTitle = dataset.file_meta.ImplementationVersionName = SECRET
        dataset.file_meta.PrivateInformationCreatorUID, dataset.file_meta.PrivateInformation = "1.2", SECRET.encode()
        fill(dataset, {*KEPT, *KEPT_ALSO})
        for keyword, value in KEPT.items():
            setattr(dataset, keyword, value)
        method, deeper = Dataset(), Dataset()
        method.CodeValue, method.CodingSchemeDesignator, method.CodeMeaning = "113100", "DCM", "Basic Profile"
        fill(deeper, {"SpecificCharacterSet"})
        fill(method, {*CODE, "SpecificCharacterSet"})
        method.EquivalentCodeSequence, method.ReferencedPatientSequence = [deeper], [deeper]
        dataset.DeidentificationMethodCodeSequence = [method]
        dataset.PatientAge, dataset.PatientWeight = "061Y", "77.25"
        dataset.save_as(path)


@pytest.fixture(scope="module")
def module_rng():
    seed = int(np.random.SeedSequence().entropy % 2**31)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def source_of(tmp_path_factory, module_rng):
    """A function of the kind: its series, which takes long to fill with secrets and so is written once."""

    @cache
    def source_of(kind):
        affine = dicom_series.random_affine(module_rng) @ np.diag([*module_rng.choice([-1, 1], 3), 1])  # of any handedness
        folder = tmp_path_factory.mktemp("sources") / kind
        write_source(kind, folder, affine, module_rng)
        return Source(kind, folder, affine)

    return source_of


@pytest.fixture(scope="module", params=KINDS)
def case(request, source_of, tmp_path_factory, module_rng):
    return Case(source_of(request.param), tmp_path_factory.mktemp(request.param), module_rng).save_both()


@pytest.fixture
def classic(source_of, tmp_path, rng):
    return Case(source_of("classic"), tmp_path, rng)


def canonical(voxels, affine):
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(voxels, dtype=np.float64), affine))
    return image.get_fdata(), image.affine


def assert_in_place(read, case):
    voxels, affine = canonical(*read(case))
    wanted, wanted_affine = canonical(case.voxels, case.affine)
    np.testing.assert_allclose(affine, wanted_affine, rtol=0, atol=1e-4)  # NIfTI of dcm2niix is float32
    # half a step of 16 bits, and what float32 readers lose in intercept + slope * integer
    np.testing.assert_allclose(voxels, wanted, rtol=0, atol=0.5 * np.ptp(wanted) / 65535 + 1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
def test_others_find_every_voxel_in_its_place(case, reader):
    assert_in_place(READERS[reader], case)


@pytest.mark.filterwarnings("ignore")
def test_monais_reader_which_does_not_place_frames_finds_every_voxel_of_slices_in_its_place(classic):
    assert_in_place(read_pydicom, classic.save_both())


def test_how_the_case_is_unlike_what_the_weights_saw_stands_before_all_else(classic):
    lines = [f"t1 is unlike what the weights saw: {'very ' * 300}"]
    unseen = {"unseen": json.dumps(lines)}
    classic.save(pred=classic.volume(classic.voxels, **unseen), uncertainty=classic.volume(classic.deviation, **unseen))
    for file in classic.written:
        dataset = dcmread(file)
        assert dataset.ImageComments.startswith(f"DOUBTED: {lines[0]}"[:100])
        told = dataset.ContributingEquipmentSequence[-1].ContributionDescription
        assert told.startswith("DOUBTED: t1 is unlike")
        assert len(told) <= 1024  # the most that its value representation can hold
    assert "DOUBTED" not in classic.save_both().first.ImageComments


def test_the_uncertainty_is_a_float_parametric_map_on_the_same_grid(case):
    image = ParametricMap.from_file(case.out / "uncertainty.dcm")
    volume = image.get_volume()
    voxels, affine = canonical(volume.array.transpose(2, 1, 0), volume.get_affine("RAS")[:, [2, 1, 0, 3]])
    wanted, wanted_affine = canonical(case.deviation, case.affine)
    np.testing.assert_array_equal(voxels, wanted)
    np.testing.assert_allclose(affine, wanted_affine, rtol=0, atol=1e-4)
    meaning = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert meaning.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert (meaning.RealWorldValueSlope, meaning.RealWorldValueIntercept) == (1, 0)
    assert image.SeriesInstanceUID != case.first.SeriesInstanceUID
    assert image.FrameOfReferenceUID == case.first.FrameOfReferenceUID


def test_an_interval_says_what_it_is(case):
    case.save(pred=case.volume(case.voxels), interval=case.volume(case.deviation))
    image = dcmread(case.out / "interval.dcm")
    assert image.SeriesDescription == "AI 80% interval, not for diagnosis" and "80%" in image.ContentDescription
    assert not (case.out / "uncertainty.dcm").exists()
    np.testing.assert_array_equal(np.sort(np.frombuffer(image.FloatPixelData, "<f4")), np.sort(case.deviation.ravel()))
    case.save_both()
    assert not (case.out / "interval.dcm").exists()


def test_patient_and_study_stay_and_nothing_else_gets_out(case):
    source = dcmread(case.sources[0])
    for path in case.written:
        assert SECRET.encode() not in path.read_bytes()
        dataset = dcmread(path)
        assert [element for element in dataset.iterall() if element.tag.is_private] == []
        same = (*KEPT, "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", "StudyTime")
        assert [str(dataset[key].value) for key in same] == [str(source[key].value) for key in same]
        (method,) = dataset.DeidentificationMethodCodeSequence
        assert {element.keyword: element.value for element in method} == {
            "CodeValue": "113100", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Basic Profile",
        }  # fmt: skip
        assert not {"PatientAge", "PatientWeight"} & {element.keyword for element in dataset}


def derivation(dataset):
    """Where a classic image says how it came about, and one of many frames."""
    if "SharedFunctionalGroupsSequence" not in dataset:
        return dataset
    return dataset.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0]


def test_a_result_says_what_it_is_and_what_made_it(case):
    sha256 = subprocess.run(["sha256sum", case.folder / "some.pt"], capture_output=True, text=True).stdout.split()[0]
    sops = {"classic": MRImageStorage, "enhanced": EnhancedMRImageStorage}
    series, uncertainty = case.first, dcmread(case.written[-1])
    assert (series.SOPClassUID, uncertainty.SOPClassUID) == (sops[case.kind], ParametricMapStorage)
    assert series.ImageType[:2] == ["DERIVED", {"classic": "SECONDARY", "enhanced": "PRIMARY"}[case.kind]]
    for dataset in (series, uncertainty):
        assert dataset.SyntheticData == "YES"
        assert dataset.SeriesDescription.startswith("AI ")
        assert "not for diagnosis" in dataset.SeriesDescription
        assert dataset.SoftwareVersions
        how = derivation(dataset)
        for fact in ("model some", f"sha256 {sha256}", "NFE 2", "samples 3", "seed 5", "super-resolution 4x4x4 of t1"):
            assert fact in how.DerivationDescription
        assert [item.CodeValue for item in how.DerivationCodeSequence] == ["123110", "113085"]  # AI, spatial resampling
        purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in dataset.ContributingEquipmentSequence]
        assert purposes == ["109101", "109102"]  # acquisition, processing
        assert dataset.ContributingEquipmentSequence[0].Manufacturer == "nobody"


def test_all_sources_are_referenced(case):
    wanted = {dcmread(path).SOPInstanceUID for path in case.sources}
    for path in case.written:
        assert {item.ReferencedSOPInstanceUID for item in derivation(dcmread(path)).SourceImageSequence} == wanted


def test_every_object_is_new_and_a_series_is_one(case):
    objects = [dcmread(path) for path in case.written]
    sources = [dcmread(path) for path in case.sources]
    uids = [dataset.SOPInstanceUID for dataset in objects]
    assert len({*uids, *(dataset.SOPInstanceUID for dataset in sources)}) == len(uids) + len(sources)
    assert all(dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID for dataset in objects)
    assert len({dataset.SeriesInstanceUID for dataset in objects}) == 2
    assert sources[0].SeriesInstanceUID not in {dataset.SeriesInstanceUID for dataset in objects}
    assert len({dataset.SeriesNumber for dataset in (*objects, sources[0])}) == 3


def test_the_pixels_are_integers_with_a_window_that_leaves_out_extremes(case):
    dataset = case.first
    frame = dataset if case.kind == "classic" else dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    assert (dataset.BitsAllocated, dataset.pixel_array.dtype) == (16, np.uint16)
    assert frame.VOILUTFunction == "LINEAR_EXACT"
    shown = np.array([-0.5, 0.5]) * frame.WindowWidth + frame.WindowCenter
    np.testing.assert_allclose(shown, np.quantile(case.voxels, [0.01, 0.999]), rtol=1e-5)


def measures(dataset):
    """Where an image says how thick its slices are."""
    groups = dataset.get("SharedFunctionalGroupsSequence")
    return groups[0].PixelMeasuresSequence[0] if groups else dataset


@pytest.mark.parametrize("kind", KINDS)
def test_slices_are_as_thick_as_the_sources_where_they_lie_at_its_distances(kind, source_of, tmp_path, rng):
    case = Case(source_of(kind), tmp_path, rng)
    spacing = float(np.linalg.norm(case.source_affine[:3, 2]))
    for path in case.sources:  # with gaps between slices
        dataset = dcmread(path)
        measures(dataset).SliceThickness = "2.25"
        dataset.save_as(path)
    in_plane, same = case.source_affine @ np.diag([0.5, 0.5, 1, 1]), case.source_affine
    for affine, thickness in ((same, 2.25), (in_plane, 2.25), (case.affine, spacing / 4)):
        case.affine = affine
        case.save_both()
        for path in case.written:
            assert float(measures(dcmread(path)).SliceThickness) == pytest.approx(thickness)


def test_no_two_results_of_a_source_share_a_number_and_all_stand_behind_it(case):
    numbers = {dcmread(path).SeriesNumber for path in case.written}
    case.save_both()
    numbers |= {dcmread(path).SeriesNumber for path in case.written}
    assert len(numbers) == 4
    assert min(numbers) > 10**8 and max(numbers) < 2**31


# Conformance


def standard(name):
    return json.loads(package_files("highdicom").joinpath("_standard", name).read_text())


def test_the_standards_mandatory_modules_are_filled(case):
    modules, attributes = standard("iod_module_map.json"), standard("module_attribute_map.json")
    iod_of = standard("sop_class_iod_map.json")
    for dataset in (case.first, dcmread(case.written[-1])):
        for module in (module for module in modules[iod_of[dataset.SOPClassUID]] if module["usage"] == "M"):
            for attribute in (one for one in attributes[module["key"]] if not one["path"] and one["type"] in "12"):
                assert attribute["keyword"] in dataset, module
                assert attribute["type"] == "2" or dataset[attribute["keyword"]].value not in (None, ""), attribute


@needs_dciodvfy
def test_dciodvfy_finds_no_error(case, tmp_path):
    case.save(**{key: case.volume(case.voxels) for key in ("pred", "uncertainty", "interval")})
    for path in (case.series[0], case.series[-1], case.out / "uncertainty.dcm", case.out / "interval.dcm"):
        dataset = dcmread(path)
        del dataset.SyntheticData  # the program's dictionary, of 2022, is older than this attribute
        dataset.save_as(tmp_path / "one.dcm")
        said = subprocess.run(["dciodvfy", tmp_path / "one.dcm"], capture_output=True, text=True)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
    case.save_both()


# Files: whole or not at all


def test_a_shorter_result_replaces_a_longer_one(classic):
    classic.save_both()
    classic.voxels = classic.voxels[..., :3].copy()
    classic.save(pred=classic.volume(classic.voxels))
    assert sorted(path.name for path in classic.out.rglob("*")) == ["0001.dcm", "0002.dcm", "0003.dcm", "a_pred.nii.gz", "pred"]


def test_a_result_of_nifti_leaves_no_older_dicom(classic):
    classic.save_both()
    classic.save(pred=classic.volume(classic.voxels, dicom_files="[]"))
    assert [path.name for path in classic.out.rglob("*")] == ["a_pred.nii.gz"]


def test_a_full_disk_leaves_the_older_series_whole(classic, monkeypatch):
    classic.save_both()
    before = {path: path.read_bytes() for path in classic.out.rglob("*.*") if path.is_file()}
    saved = []

    def full_disk(dataset, path, **kwargs):
        saved.append(path)
        path.write_bytes(b"half")
        if len(saved) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dataset, "save_as", full_disk)
    with pytest.raises(BadInput, match=r"a/pred: cannot be written \(No space left on device\)"):
        classic.save(pred=classic.volume(classic.voxels + 1))
    assert len(saved) == 3
    assert {path: path.read_bytes() for path in classic.out.rglob("*.*") if path.is_file()} == before


def test_a_source_that_is_gone_is_named(classic):
    for path in classic.sources:
        path.unlink()
    with pytest.raises(BadInput, match=r"^a file of the series cannot be read again \(No such file or directory\)"):
        classic.save_both()
    assert not classic.out.exists()


def test_without_provenance_no_dicom_is_written(classic):
    SaveVolumed(["pred"], classic.folder / "out", suffixes=["pred"])({"case": "a", "pred": classic.volume(classic.voxels)})
    assert [path.name for path in classic.out.rglob("*")] == ["a_pred.nii.gz"]
