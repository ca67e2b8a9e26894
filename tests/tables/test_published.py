# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from surroundings import SHARED, needs

from scripts.evaluation.downstream_results import recovery
from scripts.experiments.systems import SYSTEMS
from scripts.tables.published import BOTH, DEGRADED_BOUND, MT, PAPER, REAL_BOUND, SR, same_method
from scripts.tables.results import load_results, method_of
from scripts.tables.tables import means

TEXT = SHARED / "paper" / "diff_ensembler_paper.txt"
COMPARED, DOWNSTREAM, MODALITIES, ABLATIONS, UNCERTAINTY, HCP, TIMES = (table.rows for table in PAPER.values())
HEADINGS = {"SR": SR, "MT": MT, "both condition": BOTH}
TRANSLATION = {"conditions": ["t1ce"], "target": "flair", "block": [1, 1, 1]}
BOTH_CONDITIONS = {"conditions": ["flair", "t1ce"], "target": "flair"}
THREE = ["axial", "coronal", "sagittal"]


def printed(first, last):
    """The cells of lines of the paper's text, without citations."""
    lines = TEXT.read_text(encoding="utf-8").splitlines()[first - 1 : last]
    return [[re.sub(r"\[\d+\]", "", cell).strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def numbers(cells):
    return [None if cell == "-" else float(cell) for cell in cells]


def found(rows, method, task):
    """The numbers of a method, however it is written."""
    [row] = [row for row in rows if same_method(row.method, method) and row.task == task]
    return list(row.numbers.values())


# The figures


@needs("../shared/paper", TEXT.is_file())
def test_every_figure_is_that_of_the_papers_text():
    for method, *cells in printed(52, 65):
        cells = [cell for cell in cells if cell]
        if "Not Working" in cells:
            cells[4:5] = ["-"] * 4
        assert [found(COMPARED, method, task)[:4] for task in (SR, MT, BOTH)] == [numbers(cells[i : i + 4]) for i in (0, 4, 8)]
    task = ""
    for method, *cells in printed(73, 89):
        task = HEADINGS.get(method, task)
        assert method in HEADINGS or found(DOWNSTREAM, method, task) == numbers(cells)
    assert [list(row.numbers.values()) for row in MODALITIES] == [numbers(cells) for _, *cells in printed(95, 99)]
    switched = {"\N{EN DASH}": "no", "\N{CHECK MARK}": "yes"}
    for row, cells in zip(ABLATIONS, printed(104, 109), strict=True):
        assert list(row.numbers.values()) == [*(switched[cell] for cell in cells[:4]), *numbers(cells[4:])]
    lines = printed(178, 189)
    for (method, *above), below in zip(lines[::2], lines[1::2], strict=True):
        deviations = numbers(cell for cell in below if cell)
        for i, task in enumerate((SR, MT, BOTH)):
            psnr, ssim, mace = numbers(above[3 * i : 3 * i + 3])
            psnr_std, ssim_std = deviations[2 * i : 2 * i + 2]
            assert found(UNCERTAINTY, method, task) == [psnr, psnr_std, ssim, ssim_std, mace]
    assert [[row.method, *row.numbers.values()] for row in HCP] == [[name, *numbers(rest)] for name, *rest in printed(204, 205)]
    times = [[days, 60 * minutes] for days, minutes in (numbers(cells[1:]) for cells in printed(223, 234))]
    assert [list(row.numbers.values()) for row in TIMES] == times


def test_every_table_has_all_of_its_rows():
    sizes = {1: 14 * 3, 2: 2 + 4 * 3, 3: 5, 4: 6, 5: 6 * 3, 6: 2, 8: 12}
    assert {number: len(table.rows) for number, table in PAPER.items()} == sizes
    for table in PAPER.values():
        assert len({(row.method, row.task) for row in table.rows}) == len(table.rows)


def test_figures_that_the_paper_prints_twice_agree():
    for row in UNCERTAINTY:
        assert found(COMPARED, row.method, row.task)[:2] == [row.numbers["psnr"], row.numbers["ssim"]]
    for row in MODALITIES[3:]:
        assert found(COMPARED, row.method, BOTH)[:3] == [row.numbers[key] for key in ("psnr", "ssim", "mmd")]
    assert found(ABLATIONS, "ablation_all", SR)[4:] == found(COMPARED, "ours_tpdm", SR)[:3]


def test_published_recoveries_follow_from_published_dice():
    """Dice is printed to 0.01: up to 5 points of recovery where degrading costs 0.41."""
    real, degraded = found(DOWNSTREAM, REAL_BOUND, "")[:3], found(DOWNSTREAM, DEGRADED_BOUND, "")[:3]
    for row in DOWNSTREAM[2:]:
        values = list(row.numbers.values())
        for dice, low, high, share in zip(values[:3], degraded, real, values[3:], strict=True):
            assert row.task == MT or 100 * recovery(dice, low, high) == pytest.approx(share, abs=5)


# Names


@pytest.mark.parametrize(
    ("system", "method", "psnr"),
    [
        ({"name": None}, "Ours-TPDM", 33.24),
        ({"fusion": False, **TRANSLATION}, "TPDM", 25.35),
        ({"fusion": False, "planes": ["axial"]}, "Palette", 29.26),
        ({"fusion": False, "planes": ["axial"], "slab": 5}, "Palette-2.5D", 29.76),
        ({"fusion": False, "planes": THREE, "slab": 5}, "MADM", 33.02),
        ({"planes": THREE, **BOTH_CONDITIONS}, "Ours-TOSM", 36.51),
        ({"planes": THREE, "slab": 5}, "Ours-MADM", 33.31),
        ({"name": "ours_tpdm"}, "Ours-TPDM", 33.24),
        ({"name": "palette_2_5d", **TRANSLATION}, "Palette-2.5D", 23.04),
        ({"name": "unet_3d"}, "U-net-3D", 31.23),
        ({"name": "u_net"}, "U-net", 30.32),
        ({"name": "U-Net 3D", **BOTH_CONDITIONS}, "U-net-3D", 32.95),
        ({"name": "pix2pix"}, "Pix2pix", 28.75),
        ({"name": "ours_modalities", **BOTH_CONDITIONS}, "Ours-modalities", 35.6),
        ({"name": "ablation_volumes"}, "Ablation-volumes", 32.97),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_papers_row_of_the_same_method_and_task_follows_ours(system, method, psnr, write):
    rows = means(load_results([write("a", **system), write("b", **{**system, "nfe": 2})])).rows
    assert len(rows) == 3
    assert rows[-1].cells["system"].value == f"{method} (paper, BraTS 2021, n = 251)"
    assert rows[-1].cells["psnr"].value == psnr
    assert "other data" in rows[-1].cells["system"].notes[0]


@pytest.mark.parametrize(
    "system",
    [{"block": [1, 1, 4]}, {"block": [2, 2, 2]}, {"name": "cubic"}, {"name": "tpdm_alternate"}, {**TRANSLATION, "target": "t2"},
     {"planes": ["axial"]}, {"size": "small"}, {"slab": 5}, {"planes": []}],
    ids=str,
)  # fmt: skip
def test_the_paper_has_no_row_for_another_task_or_method(system, write):
    assert len(means(load_results([write("a", **system)])).rows) == 1


def test_a_smaller_fusion_is_the_papers_small_one():
    fused = {"planes": ["coronal", "sagittal"], "fusion": True}
    assert method_of({**fused, "size": "compact_small"}) == "Ours-TPDM-small"
    assert method_of({**fused, "size": "compact_small", "fusion": False}) == "TPDM"


def test_every_published_method_but_the_bounds_is_a_system_of_the_experiments():
    methods = {row.method for table in PAPER.values() for row in table.rows} - {REAL_BOUND, DEGRADED_BOUND}
    assert all(any(same_method(method, name) for name in SYSTEMS) for method in methods)
