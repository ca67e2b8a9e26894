# SPDX-License-Identifier: Apache-2.0
"""Programs of others that read a series: each gives voxels (columns, rows, slices) and their affine in RAS mm."""

import subprocess

import dcm2niix
import nibabel as nib
import numpy as np
import SimpleITK
from highdicom import imread
from monai.transforms import LoadImage

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_itk(case):
    import itk

    files = [str(path) for path in case.series]
    image = itk.imread(files if len(files) > 1 else files[0], itk.F)
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return itk.array_from_image(image).transpose(2, 1, 0), LPS @ affine


def read_sitk(case):
    files = [str(path) for path in case.series]
    image = SimpleITK.ReadImage(files if len(files) > 1 else files[0])
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


def read_pydicom(case):
    image = LoadImage(reader="PydicomReader", image_only=True)(str(case.out / "pred"))
    return image.numpy(), image.affine.numpy()


def read_highdicom(case):
    from highdicom import get_volume_from_series

    images = [imread(path) for path in case.series]
    volume = get_volume_from_series(images) if len(images) > 1 else images[0].get_volume()
    return volume.array.transpose(2, 1, 0), volume.get_affine("RAS")[:, [2, 1, 0, 3]]


def read_dcm2niix(case):
    out = case.folder / "nifti"
    out.mkdir(exist_ok=True)
    command = [dcm2niix.bin, "-b", "n", "-f", "one", "-o", str(out), str(case.out / "pred")]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.nii")
    image = nib.load(path)
    return image.get_fdata(), image.affine


READERS = {"itk": read_itk, "sitk": read_sitk, "highdicom": read_highdicom, "dcm2niix": read_dcm2niix}
