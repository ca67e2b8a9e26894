# SPDX-License-Identifier: Apache-2.0
"""How wrong results of weights are, learned from the train split and scaled, contrast by contrast, on the val split."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.cases import ERROR
from ..data.grid import crop_box
from ..data.layouts import modality_of
from ..errors import BadInput
from ..inferers.intervals import LEVEL, Head, write_head
from ..measurement.channels import normalized_input
from ..networks.error_net import ErrorNet
from ..running.commands import setting
from ..running.workflow import config_files, load_config, task_config
from .any_table import MEASURED

logger = logging.getLogger(__name__)
SIDE, PATCHES = 40, 12  # voxels a side, and how many of each training case
STEPS, BATCH, LEARNING_RATE = 1200, 4, 2e-3
KEPT = 100_000  # voxels of a val case that its coverage is taken of
Ratios = npt.NDArray[np.float32]  # of errors to what the head says of them


class Answer(NamedTuple):
    """What the head sees (1, C + 5, H, W, D) and the result's error (1, 1, H, W, D), both normalised, in a volume's mask."""

    x: Tensor
    error: Tensor
    mask: Tensor

    def cut(self, rng: np.random.Generator) -> "Answer":
        """A cube of `SIDE` voxels at most, whose centre is in the mask."""
        centre = rng.choice(self.mask[0, 0].nonzero().numpy())
        start = [
            int(min(max(at - SIDE // 2, 0), max(side - SIDE, 0)) // 2 * 2)
            for at, side in zip(centre, self.mask.shape[2:], strict=True)
        ]
        h, w, d = (slice(first, first + SIDE) for first in start)
        return Answer(*(volume[:, :, h, w, d].clone() for volume in self))


def intervals(
    weights: str, sources: Sequence[Sequence[str]], *, task: str = "super_resolution", cases: int = 16,
    settings: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write beside weights, as NAME.interval.json and .pt, what predicts the 80 % interval of their results of one step.

    sources: folder and contrast of each; cases: of the train split of each, on whose results the head is trained; those of the
    val split scale it. task: as the weights were trained for; where it measures nothing by itself, as `any` does not, cases
    take turns in what is simulated. settings: KEY=VALUE, ids of the configs. Prints what was covered.
    """
    if cases < 1:
        raise BadInput(f"--cases {cases}: give 1 and more")
    options = {"ckpt_path": weights, **dict(map(setting, settings))}
    ways = list(MEASURED.values()) if "simulated" in load_config(config_files("evaluate", [task_config(task)])) else [{}]
    sources = [(folder, modality_of(contrast)) for folder, contrast in sources]
    trained, scaled = list[Answer](), dict[str, list[Ratios]]()
    for folder, contrast in sources:
        own = {**options, "dataset_dir": folder, **_of_contrast(task, contrast)}
        for number, answer in enumerate(answers(task, {**own, "split": "train"}, ways, cases)):
            rng = np.random.default_rng((0, number))
            trained += [answer.cut(rng) for _ in range(PATCHES)]
    network = fitted(trained)
    for folder, contrast in sources:
        own = {**options, "dataset_dir": folder, **_of_contrast(task, contrast), "split": "val"}
        scaled.setdefault(contrast, []).extend(ratios(network, answer) for answer in answers(task, own, ways, None))
    head = Head(network, {contrast: float(np.quantile(np.concatenate(each), LEVEL)) for contrast, each in scaled.items()})
    covered = {contrast: coverage(each) for contrast, each in scaled.items()}
    for contrast, shares in covered.items():
        print(f"{contrast}: {np.mean(shares):.1%} covered, {min(shares):.1%} to {max(shares):.1%}, n = {len(shares)}")
    return write_head(weights, head, {"task": task, "covered": covered})


def _of_contrast(task: str, contrast: str) -> dict[str, Any]:
    """Ids that name the contrast, for a task of a single one."""
    config = load_config(config_files("evaluate", [task_config(task)]))
    return {"conditions": [contrast], "target": contrast} if config["conditions"] == [config["target"]] else {}


def answers(task: str, options: Mapping[str, Any], ways: Sequence[Mapping[str, Any]], most: int | None) -> Iterator[Answer]:
    """Results of the cases of a split, compared with the truth."""
    for turn, way in enumerate(ways):
        config = load_config(config_files("evaluate", [task_config(task)]), {**options, **way, "specialists": None})
        dataset, network = config.get_parsed_content("dataset"), config.get_parsed_content("network").eval()
        inferer = config.get_parsed_content("inferer")
        for index in range(turn, min(len(dataset), most or len(dataset)), len(ways)):
            start, case = time.monotonic(), dataset[index]
            if ERROR in case:
                raise BadInput(f"case {case['case']}: {case[ERROR]}")
            yield _compared(case, inferer, network)
            logger.info(f"case {case['case']}: {time.monotonic() - start:.0f} s")


def _compared(case: Mapping[str, Any], inferer: Any, network: Any) -> Answer:
    image, truth = case["image"], case["label"].as_tensor()[None]
    result = inferer(image[None], network, case=str(case["case"])).as_subclass(Tensor)
    truth = truth[:, :, *crop_box(image)]
    operator = inferer.measured_by(image)
    x, mask, scale = normalized_input(image.as_tensor()[None], operator)
    first = scale.of_channel(0)
    seen, error = torch.cat([first.normalize(result), x], dim=1), (first.normalize(result) - first.normalize(truth)).abs()
    return Answer(seen.half(), error.half(), mask > 0)


def fitted(patches: Sequence[Answer]) -> ErrorNet:
    """A head for which a share of `LEVEL` of the errors lie below what it says: by the quantile (pinball) loss."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = ErrorNet(patches[0].x.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        chosen = [patches[int(at)] for at in torch.randint(len(patches), (BATCH,), generator=generator)]
        loss = sum((_pinball(network(one.x.float()), one) for one in chosen), torch.zeros(())) / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            logger.info(f"step {step + 1}/{STEPS}: loss {float(loss.detach()):.5f}")
    return network.eval()


def _pinball(predicted: Tensor, answer: Answer) -> Tensor:
    """Koenker and Bassett 1978, over the mask."""
    above = answer.error.float() - predicted
    return torch.maximum(LEVEL * above, (LEVEL - 1) * above)[answer.mask].mean()


def ratios(network: ErrorNet, answer: Answer) -> Ratios:
    """Errors of some voxels of the mask to what the head says of them."""
    said = network.whole(answer.x.float())[answer.mask].numpy()
    error = answer.error.float()[answer.mask].numpy()
    chosen = np.random.default_rng(0).choice(error.size, min(error.size, KEPT), replace=False)
    return np.asarray(error[chosen] / said[chosen], dtype=np.float32)


def coverage(each: Sequence[Ratios]) -> list[float]:
    """Share of every case's voxels within the interval, scaled on the other cases alone."""
    if len(each) < 2:
        raise BadInput("one case of the val split scales nothing that could be checked: give two and more")
    shares = []
    for left_out, own in enumerate(each):
        others = np.concatenate([one for index, one in enumerate(each) if index != left_out])
        shares.append(float((own <= np.quantile(others, LEVEL)).mean()))
    return shares
