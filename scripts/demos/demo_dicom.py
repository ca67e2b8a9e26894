# SPDX-License-Identifier: Apache-2.0
"""From a DICOM study to a derived series in it and a report: thick slices restored."""

import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data.meta_tensor import MetaTensor

from ..data.cases import find_cases
from ..data.meta_tensors import make_volume
from ..data.volumes import pad_to_multiple, read_volume
from ..errors import BadInput
from ..measurement import BlockAverage
from ..running.workflow import run_workflow

THICK = (1, 1, 4)
SCANNER_UNITS = 1000.0  # the template has its maximum at 1
TEMPLATE = {
    "PatientName": "MNI152^Template", "PatientID": "mni152", "PatientBirthDate": "", "PatientSex": "", "PatientPosition": "HFS",
    "StudyDate": "", "StudyTime": "", "StudyID": "", "AccessionNumber": "", "ReferringPhysicianName": "", "Manufacturer": "",
    "SeriesNumber": 1, "SeriesDescription": "T1w, slices of 4 mm", "BodyPartExamined": "BRAIN",
    "PositionReferenceIndicator": "", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
}  # fmt: skip


def demo_dicom(study: str, output: str) -> None:
    """Make thick slices finer: of the FLAIR of a study, or its T1w, else of a series of the template that nilearn ships.

    study: a DICOM folder or a zip of one; it may be missing. Leaves in `output` a folder with the DICOM results of the case and
    `report.html`.
    """
    folder, source = Path(output), Path(study)
    if not source.exists():
        source = folder / "mni152"
        print(f"{study} is not there: taking the MNI152 template as a DICOM series, {source}")
        write_template(source)
    _restore(source, folder / "any", _contrast(source))


def _contrast(source: Path) -> str:
    """FLAIR, which shows what slices hide, where the study has one; else T1w."""
    try:
        find_cases(source, ["flair"])
    except BadInput:
        return "t1"
    return "flair"


def _restore(source: Path, folder: Path, contrast: str) -> None:
    from ..report import report

    start = time.monotonic()
    options: dict[str, Any] = {"conditions": [contrast], "target": contrast}
    run_workflow("inference", ["task_any"], run_id="inference", dataset_dir=source, output_dir=folder, **options)
    print(f"{time.monotonic() - start:.0f} s")
    for series in sorted(folder.glob("*/pred")):
        print(f"{series}: {_described(series)}")
    report(str(folder), dataset_dir=str(source))


def _described(series: Path) -> str:
    """What a DICOM reader finds in a folder of one series."""
    from pydicom import dcmread

    files = sorted(series.iterdir())
    first = dcmread(files[0], stop_before_pixels=True)
    return f"{len(files)} files, {first.SeriesDescription}"


def write_template(folder: Path) -> None:
    """The MNI152 T1 with slices of 4 mm as a classic MR series; a series of an earlier run stays."""
    from nilearn.datasets import load_mni152_template  # here, because these take seconds to import
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    from ..data.dicom.write import CLASSIC_MR, mr_images, save_all
    from ..data.dicom.write_header import tags
    from ..data.dicom.write_pixels import as_slices

    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    uids = {f"{level}UID": generate_uid() for level in ("StudyInstance", "SeriesInstance", "FrameOfReference")}
    dataset = tags(SOPClassUID=MRImageStorage, **CLASSIC_MR, **TEMPLATE, **uids)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    template = folder.with_suffix(".nii.gz")
    nib.save(load_mni152_template(resolution=1), template)
    thick = _thick(read_volume(template))
    slices = as_slices(thick.numpy()[0], np.asarray(thick.affine))
    save_all(mr_images(dataset, slices, THICK[2]), folder)


def _thick(volume: MetaTensor) -> MetaTensor:
    """A volume (1, H, W, D) averaged over four slices, in the units that scanners have."""
    fine = pad_to_multiple(SCANNER_UNITS * volume.as_tensor(), THICK)
    centre = np.diag([*THICK, 1.0])
    centre[:3, 3] = (np.array(THICK) - 1) / 2
    return make_volume(BlockAverage(THICK).measure(fine), np.asarray(volume.affine) @ centre, {})
