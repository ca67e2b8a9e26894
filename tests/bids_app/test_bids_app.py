# SPDX-License-Identifier: Apache-2.0
"""The BIDS-App, on data sets made for it: what it writes is BIDS, by the validator's rules too, and it goes on where it was."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from surroundings import needs

from scripts import bundle_root, bundle_version
from scripts.bids_app import group
from scripts.bids_app.__main__ import main
from scripts.bids_app.derivatives import PAGES, publish, run_folder
from scripts.bids_app.scans import find_scans
from scripts.data.bids import entities
from scripts.files import sha256, write_json, write_text
from scripts.networks import ScoreFusion
from scripts.networks.weights import write

pytestmark = pytest.mark.filterwarnings("ignore")
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
TINY = ["--task", "super_resolution", *(f"--set={one}" for one in ("size=tiny", "precision=float32", "backend=torch"))]
TWO = ["--samples", "2", "--steps", "2"]
ANNA, BEN = "sub-anna/ses-a/anat/sub-anna_ses-a_acq-x_T1w", "sub-ben/anat/sub-ben_T1w"


def save(path, voxels, mm=4.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels.astype(np.float32), np.diag([mm, mm, mm, 1]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.fixture
def bids(tmp_path, rng):
    """Two participants, one of whom has sessions, and scans beside those that are asked for; of Ben the skull is off."""
    root = tmp_path / "bids"
    for name in (ANNA, BEN, BEN.replace("T1w", "FLAIR")):
        voxels = np.zeros((8, 8, 8))
        voxels[1:-1, 1:-1, 1:-1] = rng.uniform(300, 900, (6, 6, 6))
        save(root / f"{name}.nii.gz", voxels)
    (root / f"{BEN}.json").write_text('{"SkullStripped": true}')
    (root / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.10.0", "Authors": ["A", "B"]}')
    (root / "README").write_text("Noise in a box, drawn anew, in place of scans. " * 5)
    return root


@pytest.fixture
def weights(tmp_path, awaken):
    write(awaken(ScoreFusion(size="tiny")).state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.fixture
def call(bids, weights):
    """Runs a level into `derivatives/score-fusion`; returns the exit code."""

    def call(level, *more):
        out = bids / "derivatives" / "score-fusion"
        try:
            return main([str(bids), str(out), level, "--weights", str(weights), *TINY, *more])
        except SystemExit as ended:
            return ended.code

    return call


def errors_of_validator(root):
    """Of a data set and its derivatives: codes and files."""
    command = [VALIDATOR, "--format", "json", "--ignoreWarnings", "-r", root]
    environment = {**os.environ, "DENO_NO_UPDATE_CHECK": "1"}
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout)
    results = [told, *told.get("derivativesSummary", {}).values()]
    assert len(results) == 2  # the source, and what was derived
    return [(issue["code"], issue["location"]) for one in results for issue in one["issues"]["issues"]]


def test_results_are_derivatives_that_say_where_they_come_from(bids, call, weights):
    assert call("participant", "--seed", "7") == 0
    out = bids / "derivatives" / "score-fusion"
    images = sorted(path.relative_to(out).as_posix() for path in out.glob("sub-*/**/*.nii.gz"))
    names = [name.replace("_T1w", "_desc-superres_T1w") for name in (ANNA, BEN)]
    assert images == [f"{name}.nii.gz" for name in names]
    told = json.loads((out / f"{names[0]}.json").read_text())
    assert told["Sources"] == [f"bids:raw:{ANNA}.nii.gz"] and told["SkullStripped"] is False
    assert (told["Seed"], told["Samples"], told["NetworkEvaluations"], told["VoxelSize"]) == (7, 1, 1, [1, 1, 1])
    assert told["Weights"] == {"File": "tiny.pt", "SHA256": sha256(weights)}
    assert json.loads((out / f"{names[1]}.json").read_text())["SkullStripped"] is True
    described = json.loads((out / "dataset_description.json").read_text())
    assert (described["DatasetType"], described["GeneratedBy"][0]["Version"]) == ("derivative", bundle_version())
    assert (out / described["DatasetLinks"]["raw"]).resolve() == bids.resolve()
    assert described["SourceDatasets"] == [{"URL": bids.resolve().as_uri()}] and described["Authors"] == ["A", "B"]
    source, result = nib.load(bids / f"{ANNA}.nii.gz"), nib.load(out / f"{names[0]}.nii.gz")
    blocks = result.get_fdata().reshape(8, 4, 8, 4, 8, 4).mean((1, 3, 5))
    np.testing.assert_allclose(blocks, source.get_fdata(), atol=900e-5)  # what was measured is kept


@needs("bids-validator-deno", VALIDATOR.is_file())
def test_the_validator_finds_no_error_and_would_find_one(bids, call):
    assert call("participant", "--participant-label", "ben", *TWO) == 0
    out = bids / "derivatives" / "score-fusion"
    write_text(out / PAGES / "group_t1.html", "as the level group leaves it")
    assert errors_of_validator(bids) == []
    derived = out / f"{BEN.replace('_T1w', '_desc-superres_T1w')}.json"
    told = json.loads(derived.read_text())
    del told["SkullStripped"]
    derived.write_text(json.dumps(told))
    assert [code for code, _ in errors_of_validator(bids)] == ["SIDECAR_KEY_REQUIRED"]


def test_a_second_call_computes_what_is_new_alone(bids, call, capsys):
    assert call("participant", "--participant-label", "sub-ben") == 0
    out = bids / "derivatives" / "score-fusion"
    (made,) = out.glob("sub-*/**/*.nii.gz")
    before = made.stat().st_mtime_ns
    capsys.readouterr()
    assert call("participant", "--session-label", "a") == 0 and call("participant", "--participant_label", "ben") == 0
    assert capsys.readouterr().out.count("finished before") == 1 and made.stat().st_mtime_ns == before
    assert len(list(out.glob("sub-*/**/*.nii.gz"))) == 2


def test_the_page_of_a_group_leads_to_the_page_of_every_scan(bids, call):
    (bids / f"{BEN}.nii.gz").write_bytes(b"nothing")
    assert call("participant", "--participant-label", "ben") == 1 and call("participant", "--session-label", "a") == 0
    assert call("participant", "--modality", "FLAIR") == 0 and call("group") == 0
    docs = bids / "derivatives" / "score-fusion" / "docs"
    assert sorted(path.name for path in docs.iterdir()) == ["group_flair.html", "group_t1.html"]
    page = (docs / "group_t1.html").read_text()
    links = re.findall(r'<a href="(\.\./[^"]+)">([^<]+)</a>', page)
    assert [name for _, name in links] == [Path(ANNA).name] and all((docs / link).is_file() for link, _ in links)
    assert "case sub-ben_T1w: " in page and "holds 7 bytes" in page


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ([], [Path(ANNA).name, Path(BEN).name]),
        (["--session-label", "ses-a"], [Path(ANNA).name]),
        (["--participant-label", "ben"], [Path(BEN).name]),
        (["--modality", "t1w"], [Path(ANNA).name, Path(BEN).name]),
        (["--modality", "FLAIR"], []),
        (["--bids-filter", '{"acq": "y"}'], [Path(BEN).name]),  # as at the other level: Ben has no choice to make
    ],
)
def test_a_group_is_of_the_scans_that_are_asked_for(more, names, bids, call, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(group, "_page", lambda page, runs, part: shown.extend(folder.name for folder, _ in runs) or "")
    out = bids / "derivatives" / "score-fusion"
    for scan in find_scans(bids, "T1w"):
        write_json(run_folder(scan, out) / "run.json", {"task": {"target": "t1"}})
    assert call("group", *more) == (0 if names else 1) and shown == names
    assert bool(names) != ("holds no such scan that was restored; run the level participant" in capsys.readouterr().err)


def test_a_scan_that_cannot_be_read_is_named_and_does_not_stop_the_others(bids, call, capsys):
    (bids / f"{BEN}.nii.gz").unlink()
    (bids / f"{BEN}.nii.gz").symlink_to("nowhere")  # as git-annex leaves it
    assert call("participant") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line == "error: sub-ben_T1w: is a link that leads nowhere; fetch the file, as with `datalad get`"
    assert call("participant", "--participant-label", "ben") == 1


def test_maps_of_an_earlier_run_are_gone_with_it_and_intervals_have_a_name(bids, call):
    out = bids / "derivatives" / "score-fusion"
    assert call("participant", "--participant-label", "ben", *TWO) == 0
    assert sorted(entities(path)["desc"] for path in out.glob("sub-ben/anat/*.json")) == ["superres", "superresUncertainty"]
    assert call("participant", "--participant-label", "ben") == 0
    assert [entities(path)["desc"] for path in out.glob("sub-ben/anat/*")] == ["superres"] * 2
    (scan,) = find_scans(bids, "t1w", participants=["ben"])
    result = run_folder(scan, out) / "sub-ben" / "sub-ben_pred.nii.gz"
    shutil.copyfile(result, result.with_name("sub-ben_interval.nii.gz"))  # as weights with a head for it leave it
    written = publish(scan, out)
    assert [entities(path)["desc"] for path in written] == ["superres", "superresInterval"]
    assert "80% interval" in json.loads(Path(str(written[1]).replace(".nii.gz", ".json")).read_text())["Description"]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--participant-label", "anna", "carl"], "participant carl: is not in {bids}; there are anna, ben"),
        (["--session-label", "z"], "session z: is not in {bids}; there are a"),
        (["--modality", "T2w"], "{bids}: no T2w of these participants and sessions; there is FLAIR (1), T1w (2);"),
        (["--bids-filter", '{"acq": "y"}', "--participant-label", "anna"], "{bids}: no T1w that the filter chooses of these"),
    ],
)
def test_what_is_not_there_is_answered_by_what_is(more, line, bids, call, capsys):
    assert call("participant", *more) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {line.format(bids=bids)}") and told.count("\n") == 1


def test_other_folders_are_no_bids_data_sets(bids, call, capsys):
    (bids / "dataset_description.json").write_text('{"Name": "made"}')
    assert call("participant") == 1 and "has no BIDSVersion; mend it, or add --skip-bids-validation" in capsys.readouterr().err
    (bids / "dataset_description.json").unlink()
    assert call("participant") == 1 and "is missing, so this is no BIDS data set" in capsys.readouterr().err
    assert call("participant", "--skip-bids-validation", "--participant-label", "ben") == 0
    assert main([str(bids / "sub-ben"), str(bids / "out"), "participant"]) == 1
    assert "it holds no sub-LABEL" in capsys.readouterr().err


def test_nothing_is_written_into_other_data_sets(bids, call, capsys, tmp_path):
    before = (bids / "dataset_description.json").read_bytes()
    assert main([str(bids), str(bids), "participant"]) == 1 and "holds another data set" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "fMRIPrep"}]}')
    assert main([str(bids), str(other), "participant"]) == 1 and "holds another data set" in capsys.readouterr().err
    assert main([str(bids), str(tmp_path / "new"), "group"]) == 1 and "run the level participant" in capsys.readouterr().err
    assert before == (bids / "dataset_description.json").read_bytes() and len(list(other.iterdir())) == 1


def test_help_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "scripts.bids_app", "--help"]
    ended = subprocess.run(command, cwd=bundle_root(), capture_output=True, text=True, check=True)
    assert "--participant-label" in ended.stdout and "--bids-filter" in ended.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "argparse" in imported and not imported & {"torch", "monai", "numpy", "nibabel", "yaml"}
