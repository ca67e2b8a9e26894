# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from scripts.experiments.nfe_curve import experiments
from scripts.report.nfe_figure import curve_figure


@pytest.fixture
def rows():
    """Results whose PSNR tells the run."""
    table = experiments([1, 2, 50], ["ddim", "ancestral"], ["fusion", "average"], "time")
    return [
        {
            **experiment._asdict(), "nfe": experiment.steps, "psnr": 20 + index, "ssim": 0.9,
            "mmd_value": 12.345, "mmd_bias": None if index == 0 else 1.5, "fid": 8.25, "seconds": 3.0, "n": 4,
        }
        for index, experiment in enumerate(table)
    ]  # fmt: skip


def test_the_figure_has_a_line_for_every_ensemble_and_sampler_from_the_common_single_step(rows):
    panels = curve_figure(rows).axes
    assert [axes.get_title() for axes in panels] == ["PSNR (dB)", "SSIM", "MMD bias", "FID"]
    for axes in panels:
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "50"]
    lines = {line.get_label(): line for line in panels[0].lines}
    assert list(lines) == ["fusion, ddim", "average, ddim", "fusion, ancestral", "average, ancestral"]
    assert {name: list(line.get_ydata()) for name, line in lines.items()} == {
        "fusion, ddim": [20, 22, 26],
        "fusion, ancestral": [20, 23, 27],
        "average, ddim": [21, 24, 28],
        "average, ancestral": [21, 25, 29],
    }
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 4
    assert np.isnan(panels[2].lines[0].get_ydata()[0])
    assert len(curve_figure(rows).legends) == 1


def test_a_single_step_alone_makes_a_figure_too(rows):
    assert [len(axes.lines) for axes in curve_figure(rows[:2]).axes] == [2, 2, 2, 2]
