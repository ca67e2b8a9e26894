# SPDX-License-Identifier: Apache-2.0
import logging
import re
import shutil
from dataclasses import replace

import pytest
from dicom_series import random_affine, random_voxels, write_series
from pydicom.uid import CTImageStorage, generate_uid
from surroundings import SCANS, needs_scans
from torch.utils.data import DataLoader

from scripts.data import LoadVolumesd, find_cases
from scripts.data.dicom import DicomSeries
from scripts.data.dicom.choose import choose, describe, find_studies
from scripts.data.dicom.words import weighting
from scripts.errors import BadInput
from scripts.running import TolerantDataset

SHARED = SCANS / "dicom"
SERIES = DicomSeries(files=(), uid="1.2", study_uid="1", patient_id="p")


@pytest.fixture
def write_study(tmp_path, rng):
    """Writes series of one study on one grid below `tmp_path`, from (description, further tags) each; returns their folders."""

    def write_study(*series, patient="phantom", skip=(), **study_tags):
        affine, tags = random_affine(rng), {"StudyInstanceUID": generate_uid(), "PatientID": patient, **study_tags}
        folders = []
        for number, (description, own) in enumerate(series, start=1):
            folders.append(tmp_path / "in" / f"{patient}-{tags['StudyInstanceUID'][-6:]}" / str(number))
            given = {"SeriesDescription": description, "SeriesNumber": number, **tags, **own}
            write_series(folders[-1], random_voxels(rng), affine, skip=skip, **given)
        return folders

    return write_study


@pytest.mark.parametrize(
    ("sequence", "times", "word"),
    [  # TE, TR, TI in ms of usual protocols at 1.5 and 3 T
        ("SE", (12, 500, None), "t1"),
        ("GR", (3, 8, 900), "t1"),
        ("GR", (2.5, 300, None), "t1"),
        ("SE", (95, 4500, None), "t2"),
        ("SE", (120, 9000, 2500), "flair"),
        ("GR", (20, 700, None), ""),
        ("SE", (15, 3000, None), ""),
        ("SE", (None, None, None), ""),
    ],
)
def test_without_a_telling_description_the_parameters_decide(sequence, times, word):
    echo, repetition, inversion = times
    given = {"echo_time": echo, "repetition_time": repetition, "inversion_time": inversion}
    assert weighting(replace(SERIES, description="AX HEAD", scanning_sequence=(sequence,), **given))[0] == word


NO_AGENT = ("N/A", "-", "--", "kein", "KEIN KM", "keine", "nativ", "NIL", "(none)", "0ml", "0 ML", "0.0", "False", "aucun",
            "pas de contraste", "ninguno", "negative", "NC", "NONE", "", "?")  # fmt: skip


def test_a_contrast_agent_makes_t1_into_t1ce_and_is_told():
    found = weighting(replace(SERIES, description="t1", contrast_agent="10 ml Gadovist"))
    assert found == ("t1ce", "by its description; contrast agent gadovist")
    assert weighting(replace(SERIES, description="t1", contrast_agent="NO"))[0] == "t1"
    assert weighting(replace(SERIES, description="t1 pre", contrast_agent="Gadovist"))[0] == "t1"


@pytest.mark.parametrize("words", NO_AGENT)
def test_no_contrast_agent_has_many_names(words):
    assert weighting(replace(SERIES, description="t1 se", contrast_agent=words))[0] == "t1"


@pytest.mark.parametrize("words", ["Yes", "15", "0,1 ml/kg Gadovist", "0.1 mmol Dotarem", "ARTIREM", "KM", "gadoteric acid"])
def test_what_names_an_agent_or_how_much_of_it_makes_t1_into_t1ce(words):
    assert weighting(replace(SERIES, description="t1 se", contrast_agent=words))[0] == "t1ce"


def test_an_original_is_preferred_to_a_reformatted_series():
    original, derived = (replace(SERIES, description="t1", number=n) for n in (2, 1))
    derived = replace(derived, image_type=("DERIVED", "SECONDARY", "REFORMATTED"))
    assert choose([derived, original], "t1", {}) == (original, "by its description")
    assert choose([derived], "t1", {}) == (derived, "by its description")


AXIAL = {"position": (0.0, 0.0, 0.0), "orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "plane": "axial"}
THICK = replace(SERIES, description="t1", number=2, shape=(256, 256, 24), spacing=(0.9, 0.9, 6.0), **AXIAL)
FINE = replace(THICK, number=3, description="t1 mprage", shape=(176, 256, 256), spacing=(1.0, 1.0, 1.0), plane="sagittal")
FLAIR = replace(THICK, number=4, description="flair", shape=(320, 320, 22), spacing=(0.7, 0.7, 6.5))


@pytest.mark.parametrize(
    ("worse", "better", "reason"),
    [
        (THICK, FINE, "isotropic"),
        (replace(THICK, shape=(256, 256, 30)), replace(FLAIR, description="t1"), "on the grid of another condition"),
        (replace(THICK, number=12, plane="coronal"), THICK, "by its plane"),
        (THICK, replace(THICK, number=7, image_type=("ORIGINAL", "PRIMARY", "M", "NORM")), "normalised (NORM)"),
        (replace(THICK, description="t1_dixon_W"), replace(THICK, description="t1_dixon_in", number=8), "in phase"),
    ],
)
def test_of_several_that_fit_the_better_is_taken_and_said_in_one_line(worse, better, reason):
    for study in ([worse, better], [better, worse]):
        chosen, _ = choose(study, "t1", {}, [[FLAIR]])
        assert replace(chosen, doubts=()) == better
        assert chosen.doubts == (f"{better} is taken for t1 and not {worse}: {reason}; series_rules decides otherwise",)
    assert choose([worse, better], "t1", {"t1": re.escape(worse.label) + "$"})[0] == worse


def test_two_conditions_are_chosen_on_one_grid(tmp_path, write_study, rng):
    write_study(("t1", {}), ("flair", {}))
    fine = {"StudyInstanceUID": "1.2.3", "PatientID": "other"}
    thick, other = random_affine(rng, (1.0, 1.0, 5.0)), random_affine(rng, (1.0, 1.0, 6.0))
    for number, (word, affine) in enumerate([("t1", thick), ("t1 again", other), ("flair", other), ("flair again", thick)]):
        tags = {"SeriesNumber": number, "SeriesDescription": word, **fine}
        write_series(tmp_path / f"two{number}", random_voxels(rng), affine, **tags)
    write_series(tmp_path / "three", random_voxels(rng), thick, SeriesNumber=9, SeriesDescription="t2", **fine)
    cases = {case["case"]: case["image"] for case in find_cases(tmp_path, ["t2", "t1", "flair"])}
    assert [str(one) for one in cases["other_20200102"]] == ["series 9 t2", "series 0 t1", "series 3 flair again"]


def test_a_film_is_one_line_and_no_candidate(tmp_path, rng):
    voxels, affine, ids = random_voxels(rng), random_affine(rng), {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    for time in range(6):
        write_series(tmp_path / str(time), voxels, affine, TemporalPositionIdentifier=time + 1, **ids)
    (study,) = find_studies(tmp_path)[0].values()
    (line,) = describe(study)
    assert line.startswith("series 1 t1 (time 1) and 5 more volumes: ") and "is one of 6 volumes in time" in line
    assert choose(study, "t1", {}) is None
    assert len(choose(study, "t1", {"t1": "t1"})[0].problem) < 300  # a rule that fits all of a film names a few


def test_the_magnitude_of_a_series_is_taken_and_its_phase_is_not(tmp_path, rng):
    voxels, affine, ids = random_voxels(rng), random_affine(rng), {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    for kind in "PM":
        write_series(tmp_path / kind, voxels, affine, ImageType=["ORIGINAL", "PRIMARY", kind, "ND"], **ids)
    (case,) = find_cases(tmp_path, ["t1"])
    assert str(case["image"][0]) == "series 1 t1 (component magnitude)"


def test_a_sound_series_is_preferred_to_one_with_a_problem():
    broken, sound = replace(SERIES, description="t1", problem="lacks 1 slice"), replace(SERIES, description="t1", number=2)
    assert choose([broken, sound], "t1", {})[0] == sound


def test_a_rule_decides_alone_and_may_name_what_is_excluded():
    plain = replace(SERIES, description="t1", number=1)
    knee = replace(SERIES, description="special", number=22, exclusion="is of KNEE, not of the head")
    assert choose([plain, knee], "t1", {"t1": "^22 "}) == (knee, "rule ^22 ")
    assert choose([plain, knee], "t1", {"t1": "SPECIAL"}) == (knee, "rule SPECIAL")
    assert choose([plain, knee], "t1", {"t1": "absent"}) is None


def test_a_broken_rule_is_bad_input():
    with pytest.raises(BadInput, match=r"^series_rules: '\(' for t1 is no regular expression"):
        choose([SERIES], "t1", {"t1": "("})


def test_a_study_is_a_case_with_a_series_for_each_condition(tmp_path, write_study, caplog):
    caplog.set_level(logging.INFO)
    write_study(("t1 post", {}), ("flair", {}), ("3-pl loc", {}))
    (case,) = find_cases(tmp_path, ["t1gd"], target="flair")
    assert (case["case"], [str(one) for one in case["image"]], str(case["label"])) == (
        "phantom_20200102",
        ["series 1 t1 post"],
        "series 2 flair",
    )
    assert "case phantom_20200102: t1ce is series 1 t1 post (by its description)" in caplog.text


def test_cases_go_through_the_loader_as_files_do(tmp_path, write_study):
    write_study(("t1", {}), ("flair", {}))
    broken = write_study(("t1", {}), ("flair", {}), patient="other")[0]
    cases = find_cases(tmp_path, ["t1", "flair"])
    next(broken.iterdir()).unlink()
    batches = list(DataLoader(TolerantDataset(cases, LoadVolumesd(("image",))), batch_size=None, num_workers=1))
    assert [batch["case"] for batch in batches] == ["other_20200102", "phantom_20200102"]
    assert "cannot be read" in batches[0]["error"]
    assert batches[1]["image"].shape == (2, 17, 17, 17)


def test_two_candidates_are_refused_by_name_and_a_rule_mends_it(tmp_path, write_study):
    write_study(("t1 sag", {}), ("t1 ax", {}))
    with pytest.raises(
        BadInput, match=r"case phantom_20200102: series 1 t1 sag and series 2 t1 ax could both be t1; .*series_rules"
    ):
        find_cases(tmp_path, ["t1"])
    assert [str(case["image"][0]) for case in find_cases(tmp_path, ["t1"], series_rules={"T1w": " ax"})] == ["series 2 t1 ax"]


def test_a_study_with_a_problem_stays_to_fail_by_name_beside_a_sound_one(tmp_path, write_study):
    write_study(("t1", {}))
    write_study(("t1", {}), patient="broken", skip=(3,))
    broken, sound = find_cases(tmp_path, ["t1"])
    assert "lacks 1 slice" in broken["image"][0].problem and not sound["image"][0].problem


def test_a_study_that_lacks_a_condition_is_left_out_with_what_was_found(tmp_path, write_study, caplog):
    write_study(("t1", {}), ("flair", {}))
    write_study(("t1", {}), patient="half")
    assert [case["case"] for case in find_cases(tmp_path, ["t1", "flair"])] == ["phantom_20200102"]
    assert "left out: case half_20200102: no series is flair; found series 1 t1: t1" in caplog.text


@pytest.mark.parametrize(
    ("series", "fact"),
    [
        (("thorax", {"Modality": "CT", "SOPClassUID": CTImageStorage}), "series 1 thorax is CT, not MR"),
        (("t1", {"BodyPartExamined": "KNEE"}), "series 1 t1: is of KNEE, not of the head"),
        (("ADC", {}), "series 1 ADC: is a derived map"),
        (("t2", {}), "series 1 t2: t2"),
    ],
)
def test_no_usable_series_is_one_line_that_says_what_was_found(tmp_path, write_study, series, fact):
    write_study(series)
    with pytest.raises(BadInput) as error:
        find_cases(tmp_path, ["t1"])
    assert fact in str(error.value) and "\n" not in str(error.value)


def test_only_unreadable_files_are_bad_input(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"a\.dcm: is not DICOM"):
        find_cases(tmp_path, ["t1"])


def test_studies_of_one_patient_and_day_get_different_names(tmp_path, write_study):
    for _ in range(2):
        write_study(("t1", {}), patient="../a b")
    names = [case["case"] for case in find_cases(tmp_path, ["t1"])]
    assert len(set(names)) == 2 and all(name.startswith("a-b_20200102_") for name in names)


def test_a_zip_is_read_as_the_folder_it_holds(tmp_path, write_study):
    write_study(("t1", {}))
    zipped = shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "in")
    (case,) = find_cases(zipped, ["t1"])
    assert LoadVolumesd(("image",))(case)["image"].shape == (1, 17, 17, 17)


def test_messages_and_cases_bear_the_name_of_a_zip(tmp_path):
    (tmp_path / "in").mkdir()
    zipped = shutil.make_archive(str(tmp_path / "anna"), "zip", tmp_path / "in")
    with pytest.raises(BadInput, match=r"anna: no case with t1; found no volume or DICOM file"):
        find_cases(zipped, ["t1"])
    (tmp_path / "in" / "t1.nii").touch()
    (case,) = find_cases(shutil.make_archive(str(tmp_path / "ben"), "zip", tmp_path / "in"), ["t1"])
    assert case["case"] == "ben"


def test_a_damaged_zip_is_named(tmp_path):
    (tmp_path / "study.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(BadInput, match=r"study\.zip: cannot be unzipped"):
        find_cases(tmp_path / "study.zip", ["t1"])


@needs_scans
def test_the_series_of_a_clinical_study_are_told_apart():
    (case,) = find_cases(SHARED / "glioma_ge_study", ["t1ce", "t1", "flair", "t2"])
    assert [one.number for one in case["image"]] == [11, 26401, 36468, 37870]
