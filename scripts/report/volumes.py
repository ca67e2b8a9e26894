# SPDX-License-Identifier: Apache-2.0
"""The volumes of a case on one grid and one intensity scale; what cannot be shown is said by name instead."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from monai.data.meta_tensor import MetaTensor

from ..data.dicom import DicomSeries
from ..data.doubts import GRID_TOLERANCE_MM
from ..data.meta_tensors import in_ras, make_volume
from ..data.volumes import LoadVolumesd, read_volume
from ..errors import BadInput
from ..evaluation.scaling import ScaleToTruthd
from ..measurement import AsScanned, Degradation, Task
from ..measurement.intensity import intensity_range
from ..measurement.task import LOOP

Volume = npt.NDArray[np.floating]


class Files(NamedTuple):
    """Where the volumes of a case lie; None for what is not there."""

    result: Path
    uncertainty: Path | None = None
    interval: Path | None = None
    inputs: Sequence[str | DicomSeries] | None = None
    truth: str | DicomSeries | None = None


class CaseVolumes(NamedTuple):
    """Volumes (H, W, D) in RAS on the result's grid, scaled so that the truth spans [0, 1].

    Without a truth, background and bright end of the result do. volumes: by name; "result" is always there, "error" is
    result - truth. affine: 4x4, voxels to mm. notes: what is not shown, and why. own: names of inputs in units of their own,
    which span [0, 1] by their own background and bright end.
    """

    volumes: Mapping[str, Volume]
    affine: npt.NDArray[np.float64]
    notes: Sequence[str]
    own: Sequence[str] = ()


def load_case(files: Files, task: Task, *, simulated: bool, compared: bool = True, **alignment: bool) -> CaseVolumes:
    """Read and scale what there is of a case. Raises BadInput when the result itself cannot be read.

    simulated: whether the run itself took the measurement, from a fine volume; else the files hold its scans. compared:
    whether there should be a truth, so that its absence is worth a note. alignment:
    `resample` and `register` as the run had them, so that volumes are shown where it used them.
    """
    loop = task.axes == LOOP
    result = read_volume(files.result, loop=loop)
    raw, notes = {"result": result}, []
    maps = (("uncertainty", files.uncertainty), ("interval", files.interval))
    for name, given in (("input", files.inputs), ("truth", files.truth), *maps):
        if given is None:
            if name == "input" or (name == "truth" and compared):  # not every run leaves maps
                notes.append(f"{name}: no file of it was found")
            continue
        try:
            if not isinstance(given, str | Path | DicomSeries):
                found = _inputs(given, task, simulate=simulated, **alignment)
            elif simulated and any(alignment.values()) and files.inputs and not isinstance(given, Path):
                found = {name: _input([files.inputs[0], given], None, **alignment)}
            else:
                found = {name: read_volume(given, loop=loop)}
            for volume in found.values():
                _check_grid(volume, result)
            raw |= found
        except (BadInput, ValueError) as error:
            notes.append(f"{name}: {error}")
    own = [name for name in raw if name.startswith("input")][len(task.scans) :]
    volumes = _on_one_scale(raw, task, own)
    return CaseVolumes(volumes, np.asarray(result.affine, dtype=np.float64), notes, own)


def _inputs(paths: Sequence[str | DicomSeries], task: Task, **options: bool) -> dict[str, MetaTensor]:
    """Every scan and every other condition by itself, (1, H, W, D), before the run padded it."""
    files, names, several = list(paths), list(task.conditions), len(task.scans) > 1
    if options["simulate"] and several:  # all from one file
        files[:1] = files[:1] * len(task.scans)
        names[:1] = ["x".join(map(str, block)) for block in task.blocks]
    titles = ["input"] if len(files) == 1 else [f"input ({name})" for name in names]
    if several:  # in the units of the result, unlike another contrast
        titles[: len(task.scans)] = [f"input {name}" for name in names[: len(task.scans)]]
    scans: list[Degradation | AsScanned | None] = list(task.scans) or [None]
    shown = {title: _input([file], scan, **options) for title, file, scan in zip(titles, files, scans, strict=False)}
    for title, file in list(zip(titles, files, strict=False))[len(shown) :]:  # where it lies beside the first
        shown[title] = _input([files[0], file], scans[0], **options)
    return shown


def _input(files: Sequence[str | DicomSeries], degradation: Degradation | AsScanned | None, **options: Any) -> MetaTensor:
    """The last of the files, as a run that has them all sees it."""
    volume = LoadVolumesd(("image",), degradation, **options)({"image": files})["image"]
    h, w, d = (slice(0, int(side)) for side in volume.meta["grid_shape"])
    voxels = volume.as_tensor()[-1:]
    if degradation is not None and len(files) == 1:  # as slices, without the holes of a measurement with gaps
        voxels = degradation.of(volume).plain(voxels)
    return in_ras(make_volume(voxels[:, h, w, d], volume.affine, volume.meta))


def _check_grid(volume: MetaTensor, result: MetaTensor) -> None:
    sides = ["x".join(str(side) for side in v.shape[1:]) for v in (volume, result)]
    if sides[0] != sides[1]:
        raise ValueError(f"its {sides[0]} voxels are not the {sides[1]} of the result")
    if not np.allclose(np.asarray(volume.affine), np.asarray(result.affine), atol=GRID_TOLERANCE_MM):
        raise ValueError("its voxels do not lie where those of the result do")


def _on_one_scale(raw: Mapping[str, MetaTensor], task: Task, own: Sequence[str]) -> dict[str, Volume]:
    """In reading order (inputs, result, truth, error, uncertainty, interval). own: as `CaseVolumes` has it."""
    arrays = {name: volume.as_tensor()[0].numpy().astype(np.float64) for name, volume in raw.items()}
    truth, result = arrays.get("truth"), arrays["result"]
    low, high = (float(end) for end in intensity_range(raw["result"].as_tensor()[None]))
    scaled = (result - low) / (high - low)
    if truth is not None:
        low, high = float(truth.min()), float(truth.max())
        pair = {"pred": raw["result"], "label": raw["truth"]}
        scaled = ScaleToTruthd(task.degradation)(pair)["pred"][0].numpy().astype(np.float64)
    inputs = [name for name in arrays if name.startswith("input")]
    shown = {name: _own_range(raw[name]) if name in own else (arrays[name] - low) / (high - low) for name in inputs}
    shown["result"] = scaled
    if truth is not None:
        shown["truth"] = (truth - low) / (high - low)
        shown["error"] = scaled - shown["truth"]
    for name in ("uncertainty", "interval"):
        if name in arrays:
            shown[name] = arrays[name] * (np.ptp(scaled) / (np.ptp(result) or 1.0))
    return shown


def _own_range(volume: MetaTensor) -> Volume:
    """Another contrast has other units: its background to 0, its bright end to 1."""
    low, high = (float(end) for end in intensity_range(volume.as_tensor()[None]))
    return (volume.as_tensor()[0].numpy() - low) / (high - low)
