# SPDX-License-Identifier: Apache-2.0
"""A beating phantom, and files of it as scanners and cameras write them."""

import os
from dataclasses import replace

import dicom_series
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

from scripts.data import Provenance
from scripts.measurement import BlockAverage, Task

STEP_MS = 32.5


def beating(shape=(24, 20, 3, 10), rng=None):
    """(X, Y, slices, frames) of uint16: an ellipse whose radius follows a cosine, smaller from slice to slice, in noise."""
    x, y, slices, frames = np.ogrid[tuple(map(slice, shape))]
    radius = min(shape[:2]) * (0.3 - 0.02 * slices + 0.08 * np.cos(2 * np.pi * frames / shape[3]))
    far = np.hypot(x - shape[0] / 2, 1.3 * (y - shape[1] / 2))
    voxels = 100 + 800 / (1 + np.exp(far - radius))
    return (voxels + (0 if rng is None else rng.uniform(0, 100, shape))).astype(np.uint16)


def provenance(folder):
    weights = folder / "some.pt"
    weights.write_bytes(b"weights")
    task = Task(["cine"], "cine", BlockAverage((2, 2, 1)))
    return Provenance("some", str(weights), task=task, nfe=1, samples=1, seed=0)


def canary_share(few):
    """Of the tags that the standard knows, how many get a word: all in `make soak`."""
    return float(os.environ.get("CANARY_SHARE", few))


def trigger_times(frames, step=STEP_MS, start=10.0):
    return start + step * np.arange(frames)


def write_classic(folder, voxels, affine, times=None, **tags):
    """A file a slice and frame, in an order that is none of time; times: (frames,) ms. Returns paths, slices outside."""
    count, frames = voxels.shape[2:]
    times = trigger_times(frames) if times is None else times
    own = {
        "ImagePositionPatient": lambda n: [*map(dicom_series._decimal, dicom_series._position(affine, n // frames))],
        "TriggerTime": lambda n: f"{times[n % frames]:g}",
        "NominalInterval": round(float(times[-1] - times[0]) * frames / (frames - 1)),
        "CardiacNumberOfImages": frames,
        "InstanceNumber": lambda n: 1 + (7 * n) % (count * frames),
        "BodyPartExamined": "HEART",
    }
    return dicom_series.write_series(folder, voxels.reshape(*voxels.shape[:2], -1), affine, **{**own, **tags})


def write_enhanced(path, voxels, affine, times=None, **tags):
    """One file; frames in time outside and slices inside."""
    count, frames = voxels.shape[2:]
    times = trigger_times(frames) if times is None else times
    flat = np.moveaxis(voxels, 3, 2).reshape(*voxels.shape[:2], -1)
    dicom_series.write_enhanced(path, flat, affine, BodyPartExamined="HEART", **tags)
    dataset = dcmread(path)
    for n, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        place = [*map(dicom_series._decimal, dicom_series._position(affine, n % count))]
        group.PlanePositionSequence[0].ImagePositionPatient = place
        beat = {"NominalCardiacTriggerDelayTime": float(times[n // count]), "RRIntervalTimeNominal": STEP_MS * frames}
        group.CardiacSynchronizationSequence = dicom_series._item(**beat)
    dataset.save_as(path)
    return path


def write_film(path, frames, **tags):
    """Ultrasound of several frames: (frames, rows, columns) or (frames, rows, columns, 3) of uint8."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    colour = frames.ndim == 4
    given = {
        "SOPClassUID": UltrasoundMultiFrameImageStorage, "SOPInstanceUID": generate_uid(), "Modality": "US",
        "StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(),
        "PatientName": "Test^Film", "PatientID": "film",
        "NumberOfFrames": len(frames), "Rows": frames.shape[1], "Columns": frames.shape[2], "FrameTime": "40",
        "FrameIncrementPointer": 0x00181063, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "SamplesPerPixel": 3 if colour else 1, "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        **({"PlanarConfiguration": 0} if colour else {}),
    }  # fmt: skip
    dicom_series._set(dataset, given | tags)
    dataset.PixelData = frames.tobytes()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def finer(cine, space=2, time=1):
    """A result: every voxel repeated, every frame too, on the grid and at the times that follow from that."""
    voxels = np.repeat(np.repeat(np.repeat(cine.voxels, space, 0), space, 1), time, 3)
    affine = cine.affine @ np.diag([1 / space, 1 / space, 1, 1])
    affine[:3, 3] -= (cine.affine[:3, 0] + cine.affine[:3, 1]) * (1 - 1 / space) / 2
    step = cine.frame_times[-1] / (len(cine.frame_times) - 1)
    times = cine.frame_times if time == 1 else np.arange(time * len(cine.frame_times)) * step / time
    return replace(cine, voxels=voxels, affine=affine, frame_times=times)
