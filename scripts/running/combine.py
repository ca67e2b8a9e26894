# SPDX-License-Identifier: Apache-2.0
"""Scans of one contrast that were acquired in different planes, to one volume that keeps all of them."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from ..bundle import bundle_root
from ..data.dicom import DicomSeries
from ..data.grid import restore_grid
from ..data.meta_tensors import grid_of, make_volume
from ..data.provenance import Provenance
from ..data.registration import LPS, Motion, resampled, rigid_motion
from ..data.volumes import read_volume
from ..data.write import write_dicom, write_volume
from ..errors import BadInput, several
from ..files import write_json
from ..logs import say
from ..measurement import AsScanned, Task
from ..measurement.joint import AcquiredScan, errors, project_jointly
from .commands import restore, setting
from .record import record

logger = logging.getLogger(__name__)

CONTRADICTION = 0.03  # of a scan's range, root mean square: what a result may miss of it before that is said
LEAST_COVERED = 0.5  # of a scan's voxels that lie within the first one's field, before that is said
# Of the joint projection, and its steps: chosen on scans simulated of one brain, 8 degrees oblique, noise of 0.5 %.
DAMPING, ITERATIONS = 0.05, 12
MOVED = 5.0  # mm and degrees: what a patient hardly moves between scans


@dataclass
class Part:
    """One scan: as acquired, and as restored by itself on the grid of the first.

    restored, weight: (1, H, W, D), its volume and 1 where it was measured; weights: name of the file that answered; doubted:
    what its restoration doubted; motion: that moved it onto the first; gain: that its values were multiplied by; missed: root
    mean square of what the result misses of it, as a share of its range, before the joint projection and after.
    """

    name: str
    scan: MetaTensor
    restored: MetaTensor
    weight: Tensor
    operator: AcquiredScan
    weights: str
    doubted: Sequence[str] = ()
    motion: Motion | None = None
    gain: float = 1.0
    missed: list[float] = field(default_factory=list)

    @property
    def measured(self) -> Tensor:
        """(h, w, d), in units of the first scan."""
        return self.scan.as_tensor()[0] * self.gain

    @property
    def covered(self) -> float:
        """Share of its voxels that lie within the first one's field."""
        return float(self.operator.covered.float().mean())

    def content(self) -> dict[str, Any]:
        """As the record holds it."""
        moved = {} if self.motion is None else {"mm": self.motion.mm, "degrees": self.motion.degrees}
        fits = {"gain": self.gain, "covered": self.covered, "missed": self.missed}
        return {"scan": self.name, "weights": self.weights, **moved, **fits}

    def doubts(self) -> list[str]:
        """Why the result may not be what this scan says."""
        lines = []
        if self.motion is not None and max(self.motion.mm, self.motion.degrees) > MOVED:
            lines.append(
                f"was moved {self.motion.mm:.1f} mm and {self.motion.degrees:.1f} degrees onto the first; look at both"
            )
        if self.covered < LEAST_COVERED:
            lines.append(f"lies by {self.covered:.0%} within the field of the first; the rest is left out")
        if self.missed[-1] > CONTRADICTION:
            lines.append(f"contradicts the others: the result misses {self.missed[-1]:.1%} of its range (root mean square)")
        return [*(f"{self.name}: {line}" for line in self.doubted), *(f"{self.name} {line}" for line in lines)]


def combine(sources: Sequence[str], output: str, **options: Any) -> None:
    """Restore every scan by itself, move all onto the first, average, and project onto all measurements at once.

    sources: two and more files, or DICOM folders of one series; the result lies on the finer grid of the first. options: as
    for `restore`. Leaves OUT/combined.nii.gz, where the first is DICOM a series OUT/combined, OUT/combined.json, and what each
    scan gave by itself in OUT/scans.
    Raises BadInput for fewer scans, and for one that was not restored or lies elsewhere.
    """
    if len(sources) < 2:
        raise BadInput(f"{several(len(sources), 'scan')}: two and more are combined; restore takes one")
    folder = Path(output).expanduser()
    parts: list[Part] = []
    for number, source in enumerate(sources, start=1):
        say(f"scan {number} of {len(sources)}")
        own = folder / "scans" / str(number)
        restore(source, str(own), **{"task": "any", **options})
        parts.append(part_of(number, own, parts[0] if parts else None))
    say("projecting onto all scans")
    volume = restore_grid(joined(parts)[None], parts[0].restored, fill=0.0)
    doubts = [line for part in parts for line in part.doubts()]
    for line in doubts:
        logger.warning("%s", line)
    provenance = _provenance(parts, record(folder / "scans" / "1"), options, doubts)
    first = {key: value for key, value in record(folder / "scans" / "1").items() if key not in ("sources", "files")}
    write_volume(volume, folder / "combined.nii.gz")
    write_dicom(_with_sources(volume, parts), folder / "combined", provenance)
    content = {"scans": [part.content() for part in parts], "doubts": doubts, "first": first}
    write_json(folder / "combined.json", content)
    say(f"result: {folder / 'combined.nii.gz'}")


def part_of(number: int, folder: Path, first: Part | None) -> Part:
    """What a run left of a scan, moved onto the first. Raises BadInput unless it restored exactly one."""
    results = record(folder)
    scanned = results.get("task", {}).get("scanned")
    if scanned is None:
        raise BadInput("a task whose slices are not as scanned combines no scans; take task any")
    if len(results["cases"]) != 1:
        raise BadInput(f"scan {number}: holds {several(len(results['cases']), 'scan')} of this contrast; give each on its own")
    case, facts = next(iter(results["cases"].items()))
    scan = read_volume(_source(results["sources"][case]["image"][0]))
    restored = read_volume(folder / case / f"{case}_pred.nii.gz")
    weight, motion = torch.ones_like(restored.as_tensor()), None
    affine, onto = grid_of(scan).affine, first.restored if first else restored
    if first is not None:
        motion = rigid_motion(first.restored, restored)
        affine = np.linalg.inv(_in_ras(motion)) @ affine
        everywhere = make_volume(weight, restored.affine, restored.meta)
        weight = resampled(everywhere, onto, motion.transform, nearest=True)[0].as_tensor()
        restored = resampled(restored, onto, motion.transform, nearest=False)[0]
        say(f"moved {motion.mm:.2f} mm and {motion.degrees:.2f} degrees onto the first")
    thickness = scanned["thickness"] or scan.meta["thickness"] or None
    grid, fine = grid_of(scan), grid_of(onto)
    operator = AcquiredScan((affine, grid.shape), (fine.affine, fine.shape), thickness=thickness, profile=scanned["profile"])
    # Folders of DICOM are named after patients, perhaps.
    file = Path(scan.meta["filename_or_obj"]).name
    name = f"scan {number}" if "dicom_files" in scan.meta else f"scan {number} ({file})"
    doubted = [line.removeprefix(f"{file}: ") for line in facts.get("doubts", ())]
    weights = facts.get("weights", results["model"]["file"])
    part = Part(name, scan, restored, weight, operator, weights, doubted, motion)
    if not operator.covered.any() or not weight.any():
        raise BadInput(f"{name}: lies outside of the first scan; leave it out")
    if first is not None:
        part.gain = _gain(operator.measure(first.restored.as_tensor()[0]), part)
    return part


def joined(parts: Sequence[Part]) -> Tensor:
    """(H, W, D): the mean of what each scan gives, where it was measured, then projected onto all; `missed` of each follows."""
    weights = torch.stack([part.weight for part in parts])
    mean = (torch.stack([part.restored.as_tensor() * part.gain for part in parts]) * weights).sum(0)[0] / weights.sum(0)[0]
    operators, measured = [part.operator for part in parts], [part.measured for part in parts]
    before = errors(mean, operators, measured)
    volume = project_jointly(mean, operators, measured, damping=DAMPING, iterations=ITERATIONS)
    for part, *missed in zip(parts, before, errors(volume, operators, measured), strict=True):
        part.missed = missed
        say(f"{part.name}: {missed[1]:.2%} of its range is missed (root mean square), {missed[0]:.2%} before")
    return volume


def _with_sources(volume: MetaTensor, parts: Sequence[Part]) -> MetaTensor:
    """The result with the files of all scans from DICOM, the first one's first, if that is from there."""
    if "dicom_files" not in parts[0].scan.meta:
        return volume
    files = [file for part in parts for file in json.loads(part.scan.meta.get("dicom_files", "[]"))]
    meta = {"dicom_files": json.dumps(files), "source_affine": parts[0].scan.meta["source_affine"]}
    return make_volume(volume.as_tensor(), volume.affine, {**volume.meta, **meta})


def _provenance(
    parts: Sequence[Part], first: Mapping[str, Any], options: Mapping[str, Any], doubts: Sequence[str]
) -> Provenance:  # fmt: skip
    """first: record of the first scan, whose weights are named."""
    target, system = first["task"]["target"], first["system"]
    given = {**options, **dict(map(setting, options.get("settings", ())))}
    weights = given.get("ckpt_path") or Path(bundle_root(), "models", parts[0].weights)
    task = Task([target], target, AsScanned(), f"{len(parts)} scans of {target} combined")
    sampling, model = (system["nfe"], system["samples"], system["seed"]), Path(parts[0].weights).stem
    return Provenance(model, str(weights), *sampling, task, unseen=tuple(doubts), adapt=system.get("adapt", 0.0))


def _gain(expected: Tensor, part: Part) -> float:
    """Which brings a scan into the units of the first, where both are: least squares of their values above the mean."""
    inside = part.operator.covered & (part.measured > part.measured.mean())
    own = part.measured[inside].double()
    return float((own * expected[inside]).sum() / (own**2).sum()) if len(own) else 1.0


def _in_ras(motion: Motion) -> np.ndarray:
    """(4, 4), from a place in the first to the same in the moved scan, in mm."""
    turn, centre = np.reshape(motion.transform.GetMatrix(), (3, 3)), np.array(motion.transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre + np.array(motion.transform.GetTranslation()) - turn @ centre
    return LPS @ matrix @ LPS


def _source(recorded: Any) -> str | DicomSeries:
    return recorded if isinstance(recorded, str) else DicomSeries.of(recorded)
