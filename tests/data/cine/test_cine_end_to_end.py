# SPDX-License-Identifier: Apache-2.0
"""One command from DICOM to DICOM, from ultrasound to ultrasound and from GIF to GIF; what is no loop ends in one line."""

import av
import cine_files
import dicom_series
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from scripts.__main__ import main
from scripts.data.cine import read_cine
from scripts.data.cine.video import encode
from scripts.networks import ScoreFusion
from scripts.networks.weights import write

SHAPE = (10, 12, 2, 6)


def classic(folder, rng):
    cine_files.write_classic(folder / "heart", cine_files.beating(SHAPE, rng), dicom_series.random_affine(rng, (4.0, 4.0, 8.0)))
    return folder / "heart"


def enhanced(folder, rng):
    return cine_files.write_enhanced(
        folder / "heart.dcm", cine_files.beating(SHAPE, rng), dicom_series.random_affine(rng, (4.0, 4.0, 8.0))
    )


def pictures(rng):
    grey = (cine_files.beating(SHAPE, rng)[:, :, 0].transpose(2, 1, 0) // 5).astype(np.uint8)
    return np.stack([grey, grey // 2, 255 - grey], axis=-1)


def ultrasound(folder, rng):
    return cine_files.write_film(folder / "heart.dcm", pictures(rng))


def gif(folder, rng):
    with (folder / "heart.gif").open("wb") as file:
        encode(pictures(rng), 0.04, file, suffix=".gif")
    return folder / "heart.gif"


def result_of(out):
    """(columns, rows, frames) of the first slice, by pydicom or PyAV."""
    (path,) = out.glob("*_pred*")
    if path.suffix == ".gif":
        with av.open(str(path)) as film:
            return np.stack([frame.to_ndarray(format="rgb24").mean(axis=-1).T for frame in film.decode(video=0)], axis=-1)
    images = [dcmread(path) for path in sorted(path.iterdir())]
    if images[0].SOPClassUID.name.startswith("MR"):
        return np.stack([image.pixel_array.T for image in images[: SHAPE[3]]], axis=-1)
    frames = images[0].pixel_array
    return (frames.mean(axis=-1) if frames.ndim == 4 else frames)[: SHAPE[3]].T


@pytest.fixture
def command(tmp_path, awaken):
    write(awaken(ScoreFusion(["x-y", "x-t", "y-t", "space-time"], size="tiny")).state_dict(), tmp_path / "tiny.pt")
    options = ["--task", "cine_super_resolution", "--weights", str(tmp_path / "tiny.pt"), "--trust", str(tmp_path / "tiny.pt")]
    out = tmp_path / "out"

    def restore(source, orientations=1):
        tiny = ["--set", "size=tiny", "--set", "precision=float32", "--set", f"orientations={orientations}"]
        return main(["restore", str(source), "-o", str(out), *options, *tiny]), out

    return restore


@pytest.mark.parametrize("kind", [classic, enhanced, ultrasound, gif], ids=lambda kind: kind.__name__)
def test_a_loop_is_answered_in_kind_four_times_as_fine(kind, command, tmp_path, rng):
    source = kind(tmp_path, rng)
    code, out = command(source, orientations=8 if kind is gif else 1)  # as shipped, and sooner
    assert code == 0
    result = result_of(out)
    assert result.shape == (4 * SHAPE[0], 4 * SHAPE[1], SHAPE[3])
    measured = read_cine(source).voxels[:, :, 0]
    coarse = result.reshape(SHAPE[0], 4, SHAPE[1], 4, -1).mean(axis=(1, 3))
    with Image.open(*out.glob("*_preview.gif")) as preview:
        assert preview.n_frames == SHAPE[3]
    assert np.corrcoef(coarse.ravel(), measured.ravel())[0, 1] > 0.9  # other units, 256 colours; but its own pixels and frames


def test_what_is_no_loop_ends_in_one_line_and_writes_nothing(command, tmp_path, rng, capsys):
    source = classic(tmp_path, rng)
    next(source.iterdir()).unlink()
    code, out = command(source)
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 1 and said[-1].startswith("error: series 1 t1 lacks frames: slice") and not out.exists()
