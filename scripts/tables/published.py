# SPDX-License-Identifier: Apache-2.0
"""The paper's own numbers (Zhu et al. 2025), as printed, a line a row; methods have the names of its table 1 in all of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..measurement import Task

SR, MT, BOTH = "super-resolution", "translation", "both"  # as `Task.kind` says it
BLOCKS = ((4, 4, 4),)
SEPARATORS = str.maketrans("", "", "-_. ")


class Published(NamedTuple):
    """A row of the paper. task: "" when it is of any; numbers: by the key of their column, None where it has none."""

    method: str
    task: str
    numbers: dict[str, float | str | None]


class PaperTable(NamedTuple):
    """A table of the paper. data: what it was measured on; note: how to read it beside ours; n: volumes, None when not told."""

    rows: tuple[Published, ...]
    data: str
    note: str
    n: int | None = None

    def like(self, method: str, tasks: Sequence[str]) -> list[Published]:
        """The rows of a method and of any of the tasks."""
        return [row for row in self.rows if same_method(row.method, method) and row.task in ("", *tasks)]


def same_method(one: str, other: str) -> bool:
    """Whether names differ at most in case, hyphens, underscores, dots and spaces, as Palette-2.5D and palette_2_5d."""
    first, second = (name.lower().translate(SEPARATORS) for name in (one, other))
    return first == second


def names_of(task: Task) -> tuple[str, ...]:
    """The paper's names of a task; none when it has none like it."""
    alike = task.blocks == BLOCKS or not task.measured
    if task.kind != SR:
        alike = alike and (task.target, task.others) == ("flair", ("t1ce",))
    return (task.kind,) if alike and task.kind in (SR, MT, BOTH) else ()


def _rows(keys: str, *lines: tuple[Any, ...]) -> tuple[Published, ...]:
    return tuple(Published(method, task, dict(zip(keys.split(), line, strict=True))) for method, task, *line in lines)


TIMES = _rows(  # table 8; it prints the line before MADM as "Ours-MADM", a slip: 40 days are TOSM's 24 and 16 for the fusion
    "training_days seconds",
    ("Palette", "", 8, 60 * 0.85),
    ("I2SB", "", 5, 60 * 4.58),
    ("Pix2pix-3D", "", 6, 60 * 0.0398),
    ("U-net-3D", "", 6, 60 * 0.0398),
    ("Palette-3D", "", 12, 60 * 0.6),
    ("TPDM", "", 16, 60 * 1.72),
    ("Ours-TPDM", "", 32, 60 * 2.34),
    ("Ours-TPDM-small", "", 20, 60 * 1.92),
    ("TOSM", "", 24, 60 * 2.55),
    ("Ours-TOSM", "", 40, 60 * 3.23),
    ("MADM", "", 36, 60 * 2.76),
    ("Ours-MADM", "", 52, 60 * 3.56),
)
SECONDS = {row.method: row.numbers["seconds"] for row in TIMES}
COMPARED = _rows(  # table 1
    "psnr ssim mmd fid",
    ("Pix2pix", SR, 28.75, 0.889, 512.2, 25.9),
    ("U-net", SR, 30.32, 0.579, 917.2, 58.9),
    ("Palette", SR, 29.26, 0.894, 40.9, 13.5),
    ("I2SB", SR, 27.51, 0.860, 2644.5, 47.7),
    ("Palette-3D", SR, 28.48, 0.320, 4222, 88.7),
    ("Pix2pix-3D", SR, 29.54, 0.866, 516.5, 8.6),
    ("U-net-3D", SR, 31.23, 0.892, 115.6, 59.6),
    ("Palette-2.5D", SR, 29.76, 0.834, 35.37, 12.3),
    ("TPDM", SR, 32.23, 0.922, 29.35, 17.3),
    ("Ours-TPDM", SR, 33.24, 0.944, 13.77, 8.31),
    ("TOSM", SR, 32.76, 0.932, 24.17, 24.87),
    ("Ours-TOSM", SR, 33.30, 0.945, 13.62, 6.51),
    ("MADM", SR, 33.02, 0.946, 30.92, 35.64),
    ("Ours-MADM", SR, 33.31, 0.945, 13.46, 6.57),
    ("Pix2pix", MT, 22.25, 0.812, 8989.0, 577.6),
    ("U-net", MT, 23.74, 0.846, 1829.0, 320.3),
    ("Palette", MT, 22.68, 0.784, 284.4, 85.9),
    ("I2SB", MT, 20.75, 0.738, 35774.5, 1343.6),
    ("Palette-3D", MT, None, None, None, None),  # "Not Working"
    ("Pix2pix-3D", MT, 22.77, 0.784, 1974.0, 342.2),
    ("U-net-3D", MT, 23.43, 0.809, 487.5, 273.8),
    ("Palette-2.5D", MT, 23.04, 0.728, 1141.19, 258.6),
    ("TPDM", MT, 25.35, 0.868, 176.3, 185.5),
    ("Ours-TPDM", MT, 25.26, 0.882, 154.9, 48.2),
    ("TOSM", MT, 25.66, 0.881, 1018.91, 209.5),
    ("Ours-TOSM", MT, 25.24, 0.882, 138.47, 136.06),
    ("MADM", MT, 25.47, 0.874, 1419.4, 251.4),
    ("Ours-MADM", MT, 25.13, 0.876, 192.51, 130.33),
    ("Pix2pix", BOTH, 31.78, 0.923, 133.9, 11.8),
    ("U-net", BOTH, 33.58, 0.931, 83.5, 36.6),
    ("Palette", BOTH, 33.6, 0.939, 34.9, 9.3),
    ("I2SB", BOTH, 31.3, 0.905, 1313.6, 12.0),
    ("Palette-3D", BOTH, 24.98, 0.297, 15926.0, 463.1),
    ("Pix2pix-3D", BOTH, 31.86, 0.900, 87.81, 56.2),
    ("U-net-3D", BOTH, 32.95, 0.922, 43.3, 43.9),
    ("Palette-2.5D", BOTH, 25.89, 0.819, 2858.37, 138.92),
    ("TPDM", BOTH, 35.12, 0.945, 14.5, 22.2),
    ("Ours-TPDM", BOTH, 36.24, 0.961, 7.52, 5.8),
    ("TOSM", BOTH, 35.44, 0.947, 8.32, 14.53),
    ("Ours-TOSM", BOTH, 36.51, 0.963, 5.926, 3.72),
    ("MADM", BOTH, 35.21, 0.946, 8.21, 13.6),
    ("Ours-MADM", BOTH, 36.37, 0.964, 5.44, 3.81),
)
REAL_BOUND, DEGRADED_BOUND = "GT FLAIR", "Downsampled GT"
DOWNSTREAM = _rows(  # table 2, all in percent
    "dice_TC dice_WT dice_ET recovery_TC recovery_WT recovery_ET",
    (REAL_BOUND, "", 82.71, 89.17, 81.20, None, None, None),
    (DEGRADED_BOUND, "", 82.30, 86.82, 80.30, None, None, None),
    ("TPDM", SR, 82.49, 87.77, 80.49, 46.27, 40.46, 20.62),
    ("TOSM", SR, 82.52, 87.21, 80.80, 54.55, 16.51, 55.28),
    ("Ours-TPDM", SR, 82.69, 87.85, 80.94, 93.71, 43.80, 71.69),
    ("Ours-TOSM", SR, 82.59, 87.86, 80.87, 70.14, 44.38, 63.94),
    ("TPDM", MT, 77.28, 77.74, 78.37, None, None, None),
    ("TOSM", MT, 77.94, 79.21, 78.64, None, None, None),
    ("Ours-TPDM", MT, 77.88, 78.51, 78.22, None, None, None),
    ("Ours-TOSM", MT, 78.84, 78.73, 79.52, None, None, None),
    ("TPDM", BOTH, 82.45, 87.69, 80.74, 36.31, 37.25, 49.28),
    ("TOSM", BOTH, 82.54, 87.27, 80.82, 57.81, 19.25, 57.79),
    ("Ours-TPDM", BOTH, 82.46, 87.91, 80.74, 38.66, 46.67, 48.97),
    ("Ours-TOSM", BOTH, 82.61, 87.98, 80.89, 75.35, 49.69, 65.72),
)
MODALITIES = _rows(  # table 3; the first three are planes of one condition each, "TPDM", "DiffEnsembler-small", "DiffEnsembler"
    "psnr ssim mmd training_days",
    ("TPDM-modalities", BOTH, 32.43, 0.929, 25.05, 0),
    ("Ours-modalities-small", BOTH, 35.34, 0.956, 8.64, 4),
    ("Ours-modalities", BOTH, 35.6, 0.958, 8.82, 16),
    ("TPDM", BOTH, 35.12, 0.945, 14.5, 8),
    ("Ours-TPDM", BOTH, 36.24, 0.961, 7.52, 24),
)
ABLATIONS = _rows(  # table 4; its rows have no names, these are those of `python -m scripts experiment ablations`
    "small consistency volumes features psnr ssim mmd",
    ("Ablation-none", SR, "no", "no", "no", "no", 32.83, 0.935, 25.45),
    ("Ablation-consistency", SR, "no", "yes", "no", "no", 32.88, 0.94, 18.84),
    ("Ablation-volumes", SR, "no", "yes", "yes", "no", 32.97, 0.941, 15.24),
    ("Ablation-features", SR, "no", "yes", "no", "yes", 33.04, 0.942, 17.76),
    ("Ablation-all", SR, "no", "yes", "yes", "yes", 33.24, 0.944, 13.77),
    ("Ablation-small", SR, "yes", "yes", "yes", "no", 32.8, 0.937, 16.78),
)
UNCERTAINTY = _rows(  # table 5, MACE in 1e-4
    "psnr psnr_std ssim ssim_std mace",
    ("TPDM", SR, 32.23, 0.0066, 0.922, 0.000300, 53.16),
    ("Ours-TPDM", SR, 33.24, 0.0298, 0.944, 0.000261, 44.63),
    ("TOSM", SR, 32.76, 0.02157, 0.932, 0.000434, 51.68),
    ("Ours-TOSM", SR, 33.30, 0.0296, 0.945, 0.000240, 42.89),
    ("MADM", SR, 33.02, 0.0276, 0.946, 0.000436, 83.20),
    ("Ours-MADM", SR, 33.31, 0.0308, 0.945, 0.000278, 42.03),
    ("TPDM", MT, 25.35, 0.2363, 0.868, 0.00112, 279.3),
    ("Ours-TPDM", MT, 25.26, 0.664, 0.882, 0.00357, 268.3),
    ("TOSM", MT, 25.66, 0.2703, 0.881, 0.00132, 221.7),
    ("Ours-TOSM", MT, 25.24, 0.668, 0.882, 0.00317, 200.8),
    ("MADM", MT, 25.47, 0.2573, 0.874, 0.00143, 251.4),
    ("Ours-MADM", MT, 25.13, 0.667, 0.876, 0.00342, 234.6),
    ("TPDM", BOTH, 35.12, 0.0154, 0.945, 0.00056, 48.72),
    ("Ours-TPDM", BOTH, 36.24, 0.0389, 0.961, 0.000249, 38.49),
    ("TOSM", BOTH, 35.44, 0.0173, 0.947, 0.00073, 46.32),
    ("Ours-TOSM", BOTH, 36.51, 0.0364, 0.963, 0.000210, 36.67),
    ("MADM", BOTH, 35.21, 0.0165, 0.946, 0.00063, 47.89),
    ("Ours-MADM", BOTH, 36.37, 0.0379, 0.964, 0.00226, 37.15),
)
HCP = _rows(  # table 6
    "psnr ssim mmd fid",
    ("TPDM", SR, 28.17, 0.890, 81.81, 35.70),
    ("Ours-TPDM", SR, 29.62, 0.914, 67.96, 22.12),
)

LANDMARK = "so read it as a landmark"
BRATS_NOTE = f"published for FLAIR of BraTS 2021 (times: an A100, diffusion in 50 steps); other data than ours, {LANDMARK}"
HCP_NOTE = f"published for FLAIR of HCP; other data than ours, {LANDMARK}"
TIMES_NOTE = f"published for an A100, diffusion in 50 steps; another machine than ours, {LANDMARK}"
TIMED = tuple(row._replace(numbers={**row.numbers, "seconds": SECONDS.get(row.method)}) for row in COMPARED)
BRATS = {1: TIMED, 2: DOWNSTREAM, 3: MODALITIES, 4: ABLATIONS, 5: UNCERTAINTY}
PAPER = {
    **{number: PaperTable(rows, "BraTS 2021", BRATS_NOTE, 251) for number, rows in BRATS.items()},
    6: PaperTable(HCP, "HCP", HCP_NOTE),
    8: PaperTable(TIMES, "A100", TIMES_NOTE),
}
