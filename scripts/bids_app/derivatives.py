# SPDX-License-Identifier: Apache-2.0
"""What is written as BIDS: the data set's own files, and of every scan its result, maps and their sidecars."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib

from ..bundle import bundle_root, bundle_version
from ..data.formats import stem
from ..errors import BadInput
from ..files import read_json, remove, sha256, whole, write_json, write_text
from ..inferers.intervals import LEVEL
from ..running.record import record
from .scans import DESCRIPTION, Scan

NAME, BIDS_VERSION = "score-fusion", "1.10.0"
WORK = ".score_fusion"  # below OUT: a folder of `restore` for every scan; validators look into no hidden folder
RAW = "raw"  # what BIDS URIs call the source
REMEDY = "give another OUT"
PAGES = "docs"  # likewise, whoever validates, even from the folder of the source
README = """# Scans restored by Score-Fusion

Files `_desc-superres_` hold scans with finer voxels than were measured, as a network supposes them: synthetic images, for
research, not for diagnosis. Lesions smaller than a voxel of the source may vanish or be invented. `_desc-superresInterval_`
says of every voxel how wrong it may be, `_desc-superresUncertainty_` how much samples differ, each in the units of the image.
The sidecars name source, weights and doubts. Made by score-fusion-bids; `.score_fusion` holds what it needs to go on.

X. Zhu et al., Diff-Ensembler: Learning to Ensemble 2D Diffusion Models for Volume-to-Volume Medical Image Translation,
arXiv:2501.07430, 2025.
"""
# Suffix of a run's file -> what follows superres in `desc`, and what it is.
VOLUMES = {
    "pred": ("", "The scan with finer voxels, synthesised by a network from what was measured"),
    "interval": ("Interval", f"Half the width of the {LEVEL:.0%} interval around each voxel of the result, in its units"),
    "uncertainty": ("Uncertainty", "Standard deviation of the samples whose mean the result is, in its units"),
}


def describe(source: Mapping[str, Any], root: Path, out: Path) -> None:
    """Write dataset_description.json, README and .bidsignore of the derivatives.

    source: what the data set in `root` says of itself. Raises BadInput where `out` holds another data set.
    """
    if out.resolve() == root.resolve() or ((out / DESCRIPTION).is_file() and not _is_ours(out)):
        raise BadInput(f"{out}: holds another data set; {REMEDY}, as {root / 'derivatives' / NAME}")
    link = os.path.relpath(root.resolve(), out.resolve())  # which holds wherever both are moved together
    where = {"DOI": source["DatasetDOI"]} if source.get("DatasetDOI") else {"URL": root.resolve().as_uri()}
    content = {
        "Name": f"{source.get('Name') or root.resolve().name}: restored by Score-Fusion",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": bundle_version()}],
        "SourceDatasets": [where],
        "DatasetLinks": {RAW: link},
        **{key: source[key] for key in ("Authors", "License") if source.get(key)},
    }
    write_json(out / DESCRIPTION, content, REMEDY)
    for name, text in (("README.md", README), (".bidsignore", f"{WORK}/\n{PAGES}/\n")):
        if not (out / name).exists():
            write_text(out / name, text, REMEDY)


def run_folder(scan: Scan, out: Path) -> Path:
    """Where `restore` works on a scan: one each, so that processes may share the scans of a data set among them."""
    return out / WORK / scan.name


def publish(scan: Scan, out: Path, *, skull_stripped: bool = False) -> list[Path]:
    """Give the volumes that a run left of a scan their names of BIDS, with sidecars; returns them, none where it failed.

    skull_stripped: where the scan's own sidecar does not say. What an earlier run left and this one did not is removed.
    """
    folder = run_folder(scan, out)
    results = record(folder)
    written: list[Path] = []
    for case, facts in results.get("cases", {}).items():
        sidecar = _facts(scan, results, facts, _is_stripped(scan, skull_stripped))
        for word, (desc, told) in VOLUMES.items():
            source, target = folder / case / f"{case}_{word}.nii.gz", out / _relative(scan, f"superres{desc}")
            if not source.is_file():
                remove(target)
                remove(target.with_name(f"{stem(target)}.json"))
                continue
            _place(source, target)
            voxel = [round(float(side), 4) for side in nib.load(target).header.get_zooms()[:3]]  # type: ignore[attr-defined]
            own = {"Description": f"{told}. For research, not for diagnosis.", **sidecar, "VoxelSize": voxel}
            write_json(target.with_name(f"{stem(target)}.json"), own, REMEDY)
            written.append(target)
    return written


def _relative(scan: Scan, desc: str) -> Path:
    """Path of a derivative: that of its source, with an entity desc, which comes last; one that it has already goes before."""
    before, _, suffix = scan.name.rpartition("_")
    if given := re.search(r"_desc-([^_]+)", before):
        before, desc = before.replace(given.group(), ""), f"{given.group(1)}{desc[0].upper()}{desc[1:]}"
    return scan.path.relative_to(scan.root).with_name(f"{before}_desc-{desc}_{suffix}.nii.gz")


def _facts(scan: Scan, results: Mapping[str, Any], facts: Mapping[str, Any], stripped: bool) -> dict[str, Any]:
    """What all sidecars of a scan say. results: the record of its run; facts: of its case in it."""
    system, model = results["system"], results["model"]
    if other := facts.get("weights"):  # of a specialist, which ships
        model = {"file": other, "sha256": sha256(Path(bundle_root(), "models", other))}
    return {
        "Sources": [f"bids:{RAW}:{scan.path.relative_to(scan.root).as_posix()}"],
        "SkullStripped": stripped,
        "Task": results["task"]["title"],
        "Weights": {"File": model["file"], "SHA256": model["sha256"]},
        "Seed": system["seed"],
        "Samples": system["samples"],
        "NetworkEvaluations": system["nfe"],
        "MinutesAdapted": system.get("adapt", 0.0),
        "Doubts": facts.get("doubts", []),
    }


def _is_stripped(scan: Scan, otherwise: bool) -> bool:
    """As the sidecar of the scan says it: what was cut off stays cut off, and nothing more is."""
    sidecar = scan.path.with_name(f"{scan.name}.json")
    told = read_json(sidecar, "mend it").get("SkullStripped") if sidecar.is_file() else None
    return told if isinstance(told, bool) else otherwise


def _is_ours(out: Path) -> bool:
    made = read_json(out / DESCRIPTION, REMEDY).get("GeneratedBy") or [{}]
    return isinstance(made, list) and isinstance(made[0], Mapping) and made[0].get("Name") == NAME


def _place(source: Path, target: Path) -> None:
    """A second name of a file; where the file system knows none, a copy."""
    if target.exists() and target.samefile(source):
        return
    with whole(target, REMEDY) as part:
        try:
            part.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, part)
