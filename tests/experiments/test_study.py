# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.data.contents import content_of
from scripts.errors import BadInput
from scripts.experiments import study as module
from scripts.experiments.study import Stage, Study


def save(path, *, voxel=0.0):
    voxels = np.arange(4**3, dtype=np.float32).reshape(4, 4, 4)
    voxels[1, 2, 3] += voxel
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


@pytest.fixture
def data(tmp_path):
    """Four cases for training, one for validation."""
    for case in "abcde":
        save(tmp_path / "data" / f"{case}_t1.nii.gz")
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "planes.pt").write_bytes(b"planes")
    return tmp_path / "planes.pt"


@pytest.fixture
def stages(weights):
    training = Stage("fusion", "train_3d", ["task_super_resolution"], {"seed": 3}, {"planes": weights})
    return [training, Stage("rows", "evaluate", options={"size": "tiny"}, weights={"planes": weights})]


@pytest.fixture
def runs(monkeypatch):
    """What ran: in place of a run of a workflow stands the file that it leaves."""
    ran = []

    def run_workflow(workflow, overlays, *, run_id, **options):
        ran.append((workflow, run_id, options))
        product = (
            Path(options["ckpt_dir"], "latest.pt") if run_id == "training" else Path(options["output_dir"], "results.json")
        )
        product.write_text(f"of run {len(ran)}")

    monkeypatch.setattr(module, "run_workflow", run_workflow)
    return ran


def test_a_finished_study_runs_nothing_even_when_its_data_and_folder_have_moved(data, stages, runs, tmp_path):
    study = Study(tmp_path / "out", data)
    study.check(stages)
    assert not (tmp_path / "out").exists()
    assert [study.run(stage).read_text() for stage in stages] == ["of run 1", "of run 2"]
    assert [run[:2] for run in runs] == [("train_3d", "training"), ("evaluate", "evaluating")]
    assert runs[0][2] == {"seed": 3, "dataset_dir": str(data), "ckpt_dir": tmp_path / "out" / "fusion"}
    (tmp_path / "out").rename(tmp_path / "moved")
    shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copy)  # with new times
    again = Study(tmp_path / "moved", tmp_path / "copy")
    again.check(stages)
    assert [again.run(stage).read_text() for stage in stages] == ["of run 1", "of run 2"]
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ("option", "rows: was made with setting mask = None, not seg"),
        ("nested option", "rows: was made with setting schedule#spacing = time, not log_snr"),
        ("overlay", "rows: was made with setting conditions#0 = t1, not t1ce"),
        ("voxel for training", r"fusion: was made with case b = [0-9a-f]{16}, not [0-9a-f]{16}"),
        ("voxel for validation", r"rows: was made with case e = [0-9a-f]{16}, not [0-9a-f]{16}"),
        ("another case", r"fusion: was made with case aa = nothing, not [0-9a-f]{16}"),
        ("weights", r"fusion: was made with weights planes = [0-9a-f]{64}, not [0-9a-f]{64}"),
    ],
)
def test_what_was_made_from_something_else_is_neither_taken_nor_overwritten(
    changed, line, data, stages, runs, weights, tmp_path
):
    for stage in stages:
        Study(tmp_path / "out", data).run(stage)
    training, rows = stages
    if changed == "another case":
        (data / "a_t1.nii.gz").rename(data / "aa_t1.nii.gz")
    elif changed == "weights":
        weights.write_bytes(b"others")
    elif "voxel" in changed:
        save(data / f"{'b' if 'training' in changed else 'e'}_t1.nii.gz", voxel=1.0)
    elif changed == "overlay":
        (tmp_path / "t1ce.yaml").write_text("conditions: [t1ce]")
        save(data / "e_t1ce.nii.gz")
        rows = rows._replace(overlays=[str(tmp_path / "t1ce.yaml")])
    else:
        option = {"mask": "seg"} if changed == "option" else {"schedule#spacing": "log_snr"}
        rows = rows._replace(options={**rows.options, **option})
    study = Study(tmp_path / "out", data)
    if changed != "weights":  # those of a study may not be there yet when it starts
        with pytest.raises(BadInput, match=f"{line}; give --output another folder"):
            study.check([training, rows])
    with pytest.raises(BadInput, match=f"{line}; give --output another folder"):
        for stage in (training, rows):
            study.run(stage)
    assert len(runs) == 2
    assert (tmp_path / "out" / "rows" / "results.json").read_text() == "of run 2"


@pytest.mark.parametrize("end", [".nii.gz", ".nii"])
def test_every_voxel_counts_of_cases_that_are_used_and_none_of_others(end, stages, runs, tmp_path):
    rows = Stage("rows", "evaluate", options={"split": "all", "max_cases": 2})
    data = tmp_path / "data"
    for case in "abc":
        save(data / f"{case}_t1{end}")
    Study(tmp_path / "out", data).run(rows)
    save(data / f"c_t1{end}", voxel=1.0)
    Study(tmp_path / "out", data).run(rows)
    assert len(runs) == 1
    save(data / f"b_t1{end}", voxel=0.5)
    with pytest.raises(BadInput, match="case b = "):
        Study(tmp_path / "out", data).run(rows)


def test_a_gzip_that_ends_on_an_empty_part_is_known_by_all_of_it(tmp_path):
    """As bgzip writes them."""
    known = set()
    for content in (b"one", b"two"):
        (tmp_path / "file.gz").write_bytes(gzip.compress(content) + gzip.compress(b""))
        known.add(content_of(tmp_path / "file.gz"))
    assert len(known) == 2


def test_a_training_that_was_killed_goes_on_as_it_was_and_as_nothing_else(data, stages, runs, tmp_path, monkeypatch):
    whole = module.run_workflow

    def killed(*arguments, **options):
        whole(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_workflow", killed)
    study = Study(tmp_path / "out", data)
    with pytest.raises(KeyboardInterrupt):
        study.run(stages[0])
    with pytest.raises(BadInput, match="fusion: was made with setting seed = 3, not 4; give --output"):
        study.run(stages[0]._replace(options={"seed": 4}))
    monkeypatch.setattr(module, "run_workflow", whole)
    study.run(stages[0])
    study.run(stages[0])
    assert len(runs) == 2


def test_what_left_nothing_is_no_hindrance(data, stages, runs, tmp_path, monkeypatch):
    """As after a value that the first start stumbled over."""
    whole = module.run_workflow

    def stumble(*arguments, **options):
        raise BadInput("size hugely: there is none")

    monkeypatch.setattr(module, "run_workflow", stumble)
    study = Study(tmp_path / "out", data)
    with pytest.raises(BadInput, match="size hugely"):
        study.run(stages[0]._replace(options={"size": "hugely"}))
    monkeypatch.setattr(module, "run_workflow", whole)
    study.run(stages[0])
    assert len(runs) == 1


def test_an_evaluation_in_which_a_case_failed_runs_again_with_the_case_as_it_is_then(data, stages, runs, tmp_path, monkeypatch):
    whole = module.run_workflow

    def failing(*arguments, **options):
        whole(*arguments, **options)
        raise SystemExit(2)

    monkeypatch.setattr(module, "run_workflow", failing)
    assert Study(tmp_path / "out", data).run(stages[1]).read_text() == "of run 1"
    monkeypatch.setattr(module, "run_workflow", whole)
    save(data / "e_t1.nii.gz", voxel=1.0)
    for _ in range(2):
        assert Study(tmp_path / "out", data).run(stages[1]).read_text() == "of run 2"


def test_who_stops_a_study_stops_it(data, stages, tmp_path, monkeypatch):
    def ended(*arguments, **options):
        raise SystemExit(143)  # SIGTERM

    monkeypatch.setattr(module, "run_workflow", ended)
    with pytest.raises(SystemExit):
        Study(tmp_path / "out", data).run(stages[1])


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (Stage("a", "train_3d", options={"learning_rat": 1e-3}), r"--options: 'learning_rat' is not in train_3d\.yaml"),
        (
            Stage("a", "train_2d", options={"schedule#spacings": "time"}),
            r"--options: 'schedule#spacings' is not in train_2d\.yaml",
        ),
        (Stage("a", "evaluate", options={"stepz": 2}), r"--options: 'stepz' is not in evaluate\.yaml"),
        (Stage("a", "evaluate", options={"steps": "two"}), "--options: --steps two is no number"),
        (Stage("a", "evaluate", ["phase_2"]), r"phase_2\.yaml: 'patch' is not in evaluate\.yaml"),
        (Stage("a", "evaluate", options={"conditions": ["t2"]}), "none of 1 cases has t2 and t1"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.workflow,
)
def test_what_would_change_nothing_or_fail_is_refused_before_the_first_stage_runs(stage, line, data, stages, runs, tmp_path):
    with pytest.raises(BadInput, match=line):
        Study(tmp_path / "out", data).check([*stages, stage])
    assert not runs
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ['{"complete": tr', "[]", ""])
def test_a_record_that_cannot_be_read_is_one_line(content, data, stages, runs, tmp_path):
    Study(tmp_path / "out", data).run(stages[0])
    (tmp_path / "out" / "fusion" / "stage.json").write_text(content)
    with pytest.raises(BadInput, match=r"^.*fusion/stage\.json: .*JSON.*; give --output another folder$"):
        Study(tmp_path / "out", data).check(stages)
    assert len(runs) == 1


@pytest.mark.parametrize("record", [None, '{"task": "task_super_resolution", "steps": 1, "options": {}}', '{"task": "task_sup'])
def test_what_0_6_left_is_refused_since_nobody_knows_its_data(record, data, stages, runs, tmp_path):
    (tmp_path / "out" / "fusion").mkdir(parents=True)
    (tmp_path / "out" / "fusion" / "latest.pt").write_bytes(b"of 0.6")
    if record is not None:
        (tmp_path / "out" / "fusion" / "done.json").write_text(record)
    with pytest.raises(BadInput, match=r"fusion: no stage\.json says what this was made from .*; give --output another folder"):
        Study(tmp_path / "out", data).run(stages[0])
    assert not runs
    assert (tmp_path / "out" / "fusion" / "latest.pt").read_bytes() == b"of 0.6"


def test_a_record_is_of_every_setting_case_and_file_of_weights_and_of_no_place(data, stages, runs, tmp_path):
    for stage in stages:
        Study(tmp_path / "out", data).run(stage)
    training, rows = (json.loads((tmp_path / "out" / name / "stage.json").read_text()) for name in ("fusion", "rows"))
    assert (training["complete"], rows["complete"]) == (True, True)
    assert (list(training["case"]), list(rows["case"])) == (list("abcd"), ["e"])
    assert (training["setting"]["seed"], training["setting"]["gradient_norm"]) == ("3", "inf")
    assert (rows["setting"]["size"], list(rows["weights"])) == ("tiny", ["planes"])
    assert str(tmp_path) not in json.dumps([training, rows])
