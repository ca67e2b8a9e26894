# SPDX-License-Identifier: Apache-2.0
"""The series that the DICOM demo makes when no study is given."""

import numpy as np
import pytest
import SimpleITK
from nilearn.datasets import load_mni152_template

from scripts.demos.demo_dicom import write_template


def test_the_demo_series_is_the_template_averaged_over_four_slices(tmp_path):
    write_template(tmp_path / "mni152")
    image = SimpleITK.ReadImage([str(path) for path in sorted((tmp_path / "mni152").iterdir())])
    template = load_mni152_template(resolution=1)  # on RAS axes
    h, w, d = template.shape
    wanted = np.pad(template.get_fdata(), [(0, 0), (0, 0), (0, -d % 4)]).reshape(h, w, -1, 4).mean(axis=-1)
    np.testing.assert_allclose(image.GetSpacing(), (1, 1, 4), atol=1e-6)
    for index in ((h // 2, w // 2, d // 8), (h // 3, w // 3, d // 6)):
        x, y, z = (template.affine @ [*index[:2], 4 * index[2] + 1.5, 1])[:3]
        at = image.TransformPhysicalPointToIndex((-x, -y, z))
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(at), (-x, -y, z), atol=1e-3)
        assert image[at] == pytest.approx(1000 * wanted[index], abs=0.02)
