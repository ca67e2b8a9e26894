# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from scripts.errors import BadInput
from scripts.report import training_curve as curve
from scripts.report.training_curve import training_curve


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What a training of 200 steps leaves that was killed after 120, two validations among them; its later log sorts first."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    for first, last, epochs in ((1, 120, [1]), (101, 200, [2])):
        with SummaryWriter(str(tmp_path / "fusion"), filename_suffix=str(last)) as writer:
            for step in range(first, last + 1):
                writer.add_scalar("loss", 1.0 if last == 120 else 0.5, step)
            for epoch in epochs:
                writer.add_scalar("psnr", 20.0 + epoch, epoch)
    torch.save({"settings": {"steps_per_epoch": 100}}, tmp_path / "fusion" / "latest.pt")
    return str(tmp_path / "fusion")


def test_loss_and_psnr_are_drawn_against_steps_and_a_resumed_run_is_joined(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curve.Figure, "savefig", lambda figure, path, dpi: drawn.append((figure, path)))
    training_curve([run], str(tmp_path / "curve.png"))
    ((figure, path),) = drawn
    (loss,), (psnr,) = (axes.get_lines() for axes in figure.axes)
    assert list(loss.get_xdata()) == list(range(5, 201, 5))
    assert list(loss.get_ydata()) == [1.0] * 20 + [0.5] * 20  # steps 101 to 120 were done twice, the second time counts
    assert list(map(list, psnr.get_data())) == [[100, 200], [21.0, 22.0]]
    assert (loss.get_label(), path.name) == ("fusion", "curve.png")


def test_the_picture_is_written_and_a_folder_without_a_log_is_refused(run, tmp_path):
    training_curve([run], str(tmp_path / "curve.png"))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="holds no TensorBoard log"):
        training_curve([str(tmp_path)], str(tmp_path / "other.png"))
