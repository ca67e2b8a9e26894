# SPDX-License-Identifier: Apache-2.0
"""Writes MR series as scanners do, with pydicom alone, so that tests need no patient's images."""

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0])


def random_affine(rng, spacing=(1.0, 1.2, 3.0)):
    """4x4, RAS mm: any rotation; columns, rows and slices form a right-handed frame, as `read_series` orders them."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = rng.uniform(-120, 120, 3)
    return affine


def random_voxels(rng, shape=(12, 10, 8)):
    """(columns, rows, slices) of uint16."""
    return rng.integers(0, 4000, shape).astype(np.uint16)


def write_series(folder, voxels, affine, *, skip=(), **tags):
    """One MR Image Storage file a slice, `folder/0001.dcm` on; returns their paths.

    voxels: (columns, rows, slices) of uint16. affine: 4x4, RAS mm, orthogonal. skip: slices (from 0) that get lost.
    tags: DICOM keywords over the defaults; a function gets the slice's number, None leaves the tag out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    column, row, _, spacing = _directions(affine)
    dataset = _common(MRImageStorage, voxels, tags)
    paths = []
    for k in (k for k in range(voxels.shape[2]) if k not in skip):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = k + 1
        dataset.ImageOrientationPatient = [*map(_decimal, column), *map(_decimal, row)]
        dataset.ImagePositionPatient = [_decimal(x) for x in _position(affine, k)]
        dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        dataset.SliceThickness = _decimal(spacing[2])
        dataset.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        _set(dataset, {key: value(k) if callable(value) else value for key, value in tags.items()})
        paths.append(folder / f"{k + 1:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced(path, voxels, affine, *, order=None, echoes=(10.0,), **tags):
    """One Enhanced MR file; frames in the given order of slices, for each slice all echoes (ms); echo e adds e to voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column, row, _, spacing = _directions(affine)
    dataset = _common(EnhancedMRImageStorage, voxels, {})
    for keyword in ("ImageType", "EchoTime", "RepetitionTime", "ScanningSequence"):
        delattr(dataset, keyword)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[*map(_decimal, column), *map(_decimal, row)])
    in_plane = [_decimal(spacing[1]), _decimal(spacing[0])]
    shared.PixelMeasuresSequence = _item(PixelSpacing=in_plane, SliceThickness=_decimal(spacing[2]))
    shared.PixelValueTransformationSequence = _item(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")
    shared.MRTimingAndRelatedParametersSequence = _item(RepetitionTime="500")
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, pixels = [], []
    for k in range(voxels.shape[2]) if order is None else order:
        for e, echo in enumerate(echoes):
            frame = Dataset()
            frame.PlanePositionSequence = _item(ImagePositionPatient=[_decimal(x) for x in _position(affine, k)])
            frame.FrameContentSequence = _item(
                StackID="1", InStackPositionNumber=int(k) + 1, DimensionIndexValues=[1, int(k) + 1]
            )
            frame.MREchoSequence = _item(EffectiveEchoTime=float(echo))
            frames.append(frame)
            pixels.append((voxels[:, :, k] + np.uint16(e)).T)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = np.stack(pixels).tobytes()
    _set(dataset, tags)
    dataset.save_as(path, enforce_file_format=True)
    return path


def compress(path, syntax):
    """Rewrite a file with a transfer syntax as gdcm calls it, such as JPEG2000Lossless."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _directions(affine):
    in_lps = LPS @ np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing = np.linalg.norm(in_lps, axis=0)
    return *(in_lps / spacing).T, spacing


def _position(affine, k):
    return LPS @ (np.asarray(affine) @ [0, 0, k, 1])[:3]


def _decimal(value):
    return f"{value:.10f}"[:16]  # a decimal string has at most 16 characters


def _item(**tags):
    item = Dataset()
    _set(item, tags)
    return Sequence([item])


def _set(dataset, tags):
    for keyword, value in tags.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)


def _common(sop_class, voxels, tags):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    given = {
        "PatientName": "Test^Phantom",
        "PatientID": "phantom",
        "PatientBirthDate": "19700101",
        "PatientSex": "O",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "StudyDate": "20200102",
        "StudyTime": "101500",
        "StudyID": "1",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "PositionReferenceIndicator": "",
        "Modality": "MR",
        "Manufacturer": "nobody",
        "SeriesNumber": 1,
        "SeriesDescription": "t1",
        "AcquisitionNumber": 1,
        "BodyPartExamined": "BRAIN",
        "PatientPosition": "HFS",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "EchoTime": "10",
        "RepetitionTime": "500",
        "EchoTrainLength": 1,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Columns": voxels.shape[0],
        "Rows": voxels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    _set(dataset, given | {key: value for key, value in tags.items() if not callable(value)})
    return dataset
