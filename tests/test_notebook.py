# SPDX-License-Identifier: Apache-2.0
"""The notebook of docs, run from its first cell to its last as Jupyter does."""

import re
from itertools import pairwise
from pathlib import Path

import nbformat
import nibabel as nib
import numpy as np
import pytest
from nbclient import NotebookClient

from scripts import bundle_root

DOCS = Path(bundle_root(), "docs")
(NOTEBOOK,) = DOCS.glob("*.ipynb")
CELLS = nbformat.read(NOTEBOOK, as_version=4).cells


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the cells print, one text a cell, and the folder in which they ran with this checkout for `score_fusion`."""
    place = tmp_path_factory.mktemp("notebook")
    (place / "score_fusion.py").write_text(f"import sys; sys.path.insert(0, {bundle_root()!r}); from scripts import restore")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(place)}}).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(part.get("text", "") for part in parts) for parts in outputs], place


def test_it_is_kept_without_what_its_cells_gave():
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert all(cell.outputs == [] and cell.execution_count is None for cell in CELLS if cell.cell_type == "code")


def test_it_is_said_what_follows_before_every_cell_and_links_lead_somewhere():
    kinds = [cell.cell_type for cell in CELLS]
    assert all(first == "markdown" for first, second in pairwise(kinds) if second == "code")
    links = re.findall(r"\]\(([^)]+)\)", "".join(cell.source for cell in CELLS if cell.cell_type == "markdown"))
    assert links and all((DOCS / link).is_file() for link in links)


def test_the_restored_scan_beats_interpolation_and_keeps_what_was_measured(run):
    texts, place = run
    psnr = dict(re.findall(r"(\w+) +([\d.]+) dB", "".join(texts)))
    assert float(psnr["restored"]) > float(psnr["interpolated"]) + 1
    thick, restored = (nib.load(place / f"{name}.nii.gz") for name in ("thick", "restored"))
    assert restored.shape == (*thick.shape[:2], 4 * thick.shape[2])
    slices = restored.get_fdata().reshape(*thick.shape, 4).mean(3)
    np.testing.assert_allclose(slices, thick.get_fdata(), atol=1e-3 * thick.get_fdata().max())  # float32, of four voxels
