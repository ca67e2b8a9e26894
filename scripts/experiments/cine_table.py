# SPDX-License-Identifier: Apache-2.0
"""What the fusion of space and time is worth: loops that were not trained on, by every method side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..data import LoadVolumesd, find_cases
from ..evaluation.frames import frame_psnr, frame_ssim, temporal_error
from ..files import whole, write_json
from ..measurement import Degradation
from ..measurement.planes import SPACE_TIME
from ..report.loops_figure import loops_figure
from ..running.workflow import config_files, load_config, task_config

Loop = npt.NDArray[np.float32]
FRAME = "x-y"  # the plane of a frame


class Method(NamedTuple):
    """Networks by a name. options: ids of the configs."""

    name: str
    options: Mapping[str, Any]


def methods(weights: str, planes: Sequence[str], planes_weights: str | None, orientations: int) -> list[Method]:
    """From less to more. planes: all members of the weights; planes_weights: a fusion of the planes alone; orientations: of the
    best, others are of one.
    """
    flat = [plane for plane in planes if plane != SPACE_TIME]
    one = {"orientations": 1}
    of = {"ckpt_path": weights, "fusion": False, **one}
    table = [
        Method("frame by frame", {**of, "planes": [FRAME]}),
        Method("average of planes", {**of, "planes": flat}),
        Method("average of members", {**of, "planes": list(planes)}),
        Method("space-time alone", {**of, "planes": [SPACE_TIME]}),
        Method("fusion of members", {"ckpt_path": weights, "planes": list(planes), **one}),
    ]
    if orientations > 1:
        table.append(Method(f"fusion in {orientations} orientations", {"ckpt_path": weights, "planes": list(planes)}))
    if planes_weights is not None:
        table.insert(4, Method("fusion of planes", {"ckpt_path": planes_weights, "planes": flat, **one}))
    return table


class Measured(NamedTuple):
    """A loop (X, Y, T) that was measured here, and the truth. image: (1, X, Y, T)."""

    case: str
    image: torch.Tensor
    truth: Loop


def cine_table(
    dataset_dir: str, output: str, *, task: str = "cine_super_resolution", ckpt_path: str | None = None,
    planes_weights: str | None = None, split: str = "val",
) -> None:  # fmt: skip
    """Print a row a method, mean over the loops of a split, and leave `cine.json` and a picture of each loop in `output`.

    dataset_dir: loops as `loops` writes them; ckpt_path: by default those that ship; planes_weights: a fusion of the planes
    without the member of space and time.
    """
    config = _config(task, {} if ckpt_path is None else {"ckpt_path": ckpt_path})
    degradation, planes, weights = (config.get_parsed_content(key) for key in ("degradation", "planes", "ckpt_path"))
    orientations = config.get_parsed_content("orientations")
    conditions = config.get_parsed_content("conditions")
    cases = find_cases(dataset_dir, conditions, target=conditions[0], split=split)
    load: Any = LoadVolumesd(degradation=degradation, simulate=True)
    loops = [_measured(load(case)) for case in cases]
    images = [loop.image[None] for loop in loops]
    said = {
        "cubic": [degradation.refine(degradation.measure(image))[0, 0].numpy() for image in images],
        "cubic, measurement kept": [degradation.interpolate(image)[0, 0].numpy() for image in images],
    }
    for method in methods(str(weights), planes, planes_weights, orientations):
        said[method.name] = _answers(task, method, loops)
    rows = {name: [_row(pred, loop, degradation) for pred, loop in zip(of, loops, strict=True)] for name, of in said.items()}
    write_json(Path(output, "cine.json"), {"task": task, "cases": [loop.case for loop in loops], "rows": rows})
    for index, loop in enumerate(loops):
        shown = {"measured": loop.image[0].numpy(), **{name: of[index] for name, of in said.items()}, "truth": loop.truth}
        shown.pop("cubic")
        with whole(Path(output, f"{loop.case}.png")) as part:
            loops_figure(shown, loop.truth).savefig(part, dpi=110)
    print(table(rows))


def _measured(data: Mapping[Any, Any]) -> Measured:
    image, label = (torch.as_tensor(data[key]).as_subclass(torch.Tensor) for key in ("image", "label"))
    return Measured(str(data["case"]), image, label[0].numpy())


def _config(task: str, options: Mapping[str, Any]) -> Any:
    return load_config(config_files("inference", [task_config(task)]), options, logs=False)


def _answers(task: str, method: Method, loops: Sequence[Measured]) -> list[Loop]:
    config = _config(task, method.options)
    inferer, network = config.get_parsed_content("inferer"), config.get_parsed_content("network").eval()
    return [inferer(loop.image[None], network, case=loop.case)[0, 0].numpy() for loop in loops]


def _row(pred: Loop, loop: Measured, degradation: Degradation) -> dict[str, float]:
    rest = degradation(torch.from_numpy(pred)) - loop.image[0]
    return {
        "psnr": frame_psnr(pred, loop.truth),
        "ssim": frame_ssim(pred, loop.truth),
        "temporal": temporal_error(pred, loop.truth, periodic=degradation.periodic),
        "measurement": float(rest.abs().max()) / float(np.ptp(loop.truth)),
    }


COLUMNS = ("method", "PSNR a frame (dB)", "over cubic, least to most (dB)", "SSIM a frame", "temporal error (%)")


def table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """In Markdown: means over the loops, and what the loop gained that gained least, and most."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    cubic = [row["psnr"] for row in rows["cubic"]]
    for name, of in rows.items():
        psnr, ssim, temporal = (float(np.mean([row[key] for row in of])) for key in ("psnr", "ssim", "temporal"))
        gains = [row["psnr"] - before for row, before in zip(of, cubic, strict=True)]
        gained = f"{min(gains):+.2f} to {max(gains):+.2f}"
        lines.append((name, f"{psnr:.2f}", gained, f"{ssim:.4f}", f"{100 * temporal:.3f}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
