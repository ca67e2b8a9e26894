# SPDX-License-Identifier: Apache-2.0
"""Restored cine MR as a derived series in the study of its source: an image a frame, or one enhanced file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage
from scipy.interpolate import make_interp_spline

from ..dicom.whitelist import Source, read_source
from ..dicom.write import CLASSIC_MR, grid_of, image_tags, pixel_tags, save_all
from ..dicom.write_frames import IN_STACK_POSITION, STACK_ID, dimensions_of, enhanced_mr, rescale_of
from ..dicom.write_header import by_series, code, derivation, header, renew, tags, update
from ..dicom.write_pixels import Grid, Placed, Stored, Window, as_slices, decimal, to_integers, window
from ..provenance import Provenance
from .cine import Cine, Times
from .mr import GATED, Loops

TEMPORAL_INDEX = 0x00209128
GATING = "CG"  # without which no trigger times may be told


class _Stack(NamedTuple):
    """What is written. grid: of the first frame; stored, shown: of all frames (slices, frames, rows, columns), a window of
    them; order: of slices in the source; times: (slices, frames) ms by its clock; step: ms from frame to frame; interval: of
    a heartbeat, 0 if not gated.
    """

    grid: Grid
    stored: Stored
    shown: Window
    order: npt.NDArray[np.int_]
    times: Times
    step: float
    interval: float
    clock: str


def write_mr(cine: Cine, like: Cine, folder: Path, origin: tuple[Loops, Provenance]) -> None:
    """Write `folder/0001.dcm` on; origin: what the source is and what made the result of it."""
    loops, provenance = origin
    source = read_source(loops.series.files)
    stack = _stack(cine, like, loops, source)
    if source.first.SOPClassUID == MRImageStorage:
        save_all(_classic(stack, source, provenance), folder)
    else:
        save_all([_enhanced(stack, source, provenance)], folder)


def _stack(cine: Cine, like: Cine, loops: Loops, source: Source) -> _Stack:
    """Slices in DICOM's order, whatever that of the voxels, each with its own times."""
    frames = [as_slices(cine.voxels[..., k], cine.affine) for k in range(cine.voxels.shape[3])]
    voxels = np.stack([frame.array for frame in frames], axis=1)
    numbers = np.broadcast_to(np.arange(len(voxels), dtype=np.float32), cine.voxels.shape[:3])
    order = as_slices(numbers, cine.affine).array[:, 0, 0].astype(int)
    times = make_interp_spline(like.frame_times, loops.times.T, k=1)(cine.frame_times).T[order]
    step = 1000 * float(cine.frame_times[-1] - cine.frame_times[0]) / (len(cine.frame_times) - 1)
    grid = grid_of(Placed(cine.voxels[..., 0], cine.affine, like.affine), source)
    interval = step * len(frames) if cine.gated else 0.0
    return _Stack(grid, to_integers(voxels), window(voxels), order, times, step, interval, loops.clock)


def _classic(stack: _Stack, source: Source, provenance: Provenance) -> Iterator[Dataset]:
    """MR Images, one a slice and frame, frame after frame. Each names those that its slice was made from."""
    dataset = _not_a_head(header(source, provenance, MRImageStorage, series=CLASSIC_MR), source, stack)
    slices, (count, frames) = stack.grid.slices, stack.times.shape
    update(dataset, {
        **image_tags(slices, stack.grid.thickness), **pixel_tags(stack.stored), **stack.shown.tags,
        "NumberOfTemporalPositions": frames, "TemporalResolution": decimal(stack.step),
        **({"CardiacNumberOfImages": frames, "NominalInterval": round(stack.interval)} if stack.interval else {}),
    })  # fmt: skip
    if stack.clock in GATED:
        dataset.ScanOptions = GATING
    places, each = slices.get_plane_positions(), len(source.images) // count
    for number, (k, frame) in enumerate(np.ndindex(count, frames), start=1):
        if frame == 0:
            own = source._replace(images=source.images[stack.order[k] * each :][:each])
            update(dataset, derivation(own, provenance, finer=stack.grid.finer))
            dataset.ReferencedSeriesSequence = by_series(own)
        dataset.InstanceNumber, dataset.TemporalPositionIdentifier = number, frame + 1
        if stack.clock in GATED:
            dataset.TriggerTime = decimal(stack.times[k, frame])
        dataset.ImagePositionPatient = places[k][0].ImagePositionPatient
        dataset.PixelData = stack.stored.integers[k, frame].tobytes()
        yield renew(dataset)


def _enhanced(stack: _Stack, source: Source, provenance: Provenance) -> Dataset:
    """The Enhanced MR Image of the first frame, with the others behind it."""
    dataset = _not_a_head(enhanced_mr(stack.grid, source, provenance), source, stack)
    groups, count, frames = dataset.SharedFunctionalGroupsSequence[0], *stack.times.shape
    groups.PixelValueTransformationSequence = [rescale_of(stack.stored.slope, stack.stored.intercept)]
    groups.FrameVOILUTSequence = [tags(**stack.shown.tags)]
    (organization,) = dataset.DimensionOrganizationSequence
    dataset.DimensionIndexSequence = dimensions_of(
        organization.DimensionOrganizationUID, (STACK_ID, IN_STACK_POSITION, TEMPORAL_INDEX)
    )
    dataset.DimensionOrganizationType = "3D_TEMPORAL"
    dataset.NumberOfFrames = count * frames
    places = stack.grid.slices.get_plane_positions()
    dataset.PerFrameFunctionalGroupsSequence = [
        tags(PlanePositionSequence=places[k], FrameContentSequence=[tags(
            StackID="1", InStackPositionNumber=k + 1, TemporalPositionIndex=frame + 1,
            DimensionIndexValues=[1, k + 1, frame + 1],
        )], **_timing(stack, float(stack.times[k, frame]), float(stack.times[k, 0])))
        for k, frame in np.ndindex(count, frames)
    ]  # fmt: skip
    dataset.PixelData = stack.stored.integers.tobytes()
    return dataset


def _timing(stack: _Stack, time: float, first: float) -> dict[str, Any]:
    """Of a frame, ms: since the heartbeat, or since the first frame."""
    if stack.clock not in GATED:
        return {"TemporalPositionSequence": [tags(TemporalPositionTimeOffset=(time - first) / 1000)]}
    beat = {"RRIntervalTimeNominal": float(stack.interval)} if stack.interval else {}
    return {"CardiacSynchronizationSequence": [tags(NominalCardiacTriggerDelayTime=time, **beat)]}


def _not_a_head(dataset: Dataset, source: Source, stack: _Stack) -> Dataset:
    """In place of what is said of heads elsewhere: a gated scan is of the heart, others of what the source says; no face."""
    gated = stack.clock in GATED
    if "BodyPartExamined" not in source.subject:
        update(dataset, {"BodyPartExamined": "HEART"} if gated else {"BodyPartExamined": None, "Laterality": None})
    dataset.RecognizableVisualFeatures = "NO"
    for group in dataset.get("SharedFunctionalGroupsSequence") or ():
        anatomy = code(codes.SCT.Heart if gated else codes.SCT.EntireBody)
        group.FrameAnatomySequence = [tags(FrameLaterality="U", AnatomicRegionSequence=[anatomy])]
    return dataset
