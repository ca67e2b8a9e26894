# SPDX-License-Identifier: Apache-2.0
"""A volume by the weights that suit it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..data.specialists import SPECIALIST, Specialist, candidates
from ..files import sha256
from ..inferers import AdaptingInferer, FusedScoreInferer
from .workflow import config_files, load_config, task_config


class Expert(NamedTuple):
    """A specialist at work: its inferer, its network and the file of its weights."""

    inferer: FusedScoreInferer
    network: nn.Module
    weights: str


class ChoosingInferer(AdaptingInferer):
    """Asks the specialist that meta `specialist` of a volume names (`ChooseWeightsd`) in place of the network it is given.

    specialists: names of tasks, read when first asked; their process, measurement and network are those of their configs, all
    else is as here. The other arguments are those of `AdaptingInferer`.
    """

    def __init__(self, *args: Any, specialists: Sequence[str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.specialists, self._experts = tuple(specialists or ()), dict[str, Expert]()
        self._sums: dict[str, str] = {}
        self.options = {**options, "steps": len(self.gammas) - 1}

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """As `FusedScoreInferer`; a batch of one where a specialist is asked."""
        if (expert := self.expert(inputs)) is None:
            return super().__call__(inputs, network, *args, **kwargs)
        result = expert.inferer(inputs, expert.network.to(inputs.device), *args, **kwargs)
        self.numbers, self.doubts = expert.inferer.numbers, expert.inferer.doubts
        return result

    def expert(self, inputs: Tensor) -> Expert | None:
        """Who is asked about inputs (1, C, H, W, D) in place of the network for all scans, if anybody."""
        said = inputs.meta.get(SPECIALIST, "") if hasattr(inputs, "meta") else ""
        task = said if isinstance(said, str) else said[0]
        if task and task not in self._experts:
            self._experts[task] = self._called(task)
        return self._experts.get(task)

    def weights(self) -> dict[str, str]:
        """sha256 of the specialists' weights, by task: results depend on them."""
        if len(self._sums) < len(self.specialists):  # a ledger asks twice a case
            self._sums = {task: sha256(Path(Specialist.of(task).weights)) for task in self.specialists}
        return self._sums

    def instead_of(self, weights: str | None) -> list[str]:
        """Names of the weights that may answer in place of these."""
        known = candidates(weights, self.specialists, steps=len(self.gammas) - 1, adapt=self.minutes)
        return [Path(one.weights).name for one in known]

    def _called(self, task: str) -> Expert:
        config = load_config(config_files("inference", [task_config(task)]), logs=False)
        own = {key: config.get_parsed_content(key) for key in ("diffusion", "degradation")}
        options = {key: value for key, value in self.options.items() if key != "minutes"} | own
        network = config.get_parsed_content("network").eval()
        return Expert(FusedScoreInferer(**options), network, str(config.get_parsed_content("ckpt_path")))


def answering(inferer: Any, inputs: Tensor, network: nn.Module) -> tuple[nn.Module, str]:
    """The network that an inferer asks about inputs (1, C, H, W, D), and the name of its weights if not the run's."""
    expert = inferer.expert(inputs) if isinstance(inferer, ChoosingInferer) else None
    return (network, "") if expert is None else (expert.network, Path(expert.weights).name)
