# SPDX-License-Identifier: Apache-2.0
"""What a network must beat, measured as networks are: `evaluate.yaml` once for every rival."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.inferers import Inferer

from ..files import write_json
from ..running.commands import setting
from ..running.workflow import config_files, load_config, run_workflow, task_config
from ..tables.columns import FLOORS
from ..tables.formats import markdown
from ..tables.gate import RIVALS
from ..tables.results import load_results
from ..tables.tables import rows_alone
from .rivals import Samples, interpolations, learned
from .study import failures_in_results

WITHOUT_NETWORK = {
    "network": {"_target_": "torch.nn.Identity"}, "limits": {"_target_": "scripts.limits.Limits"}, "record#weights": None,
    "unseen#weights": None, "interval#weights": None,
}  # fmt: skip


def floors(
    dataset_dir: str, output: str, *, task: str = "super_resolution", settings: Sequence[str] = (), **options: Any
) -> None:  # fmt: skip
    """Fit the rivals of a task to the train split, measure them on another one and print a Markdown table.

    dataset_dir: the cases; output: folder, which gets OUT/RIVAL/results.json as of `evaluate`, for `gate` and `tables`; task:
    NAME of configs/task_NAME.yaml, or a file; settings: KEY=VALUE, ids of the configs, for training and evaluation; options:
    ids of `evaluate.yaml` (split, mask, max_cases). What all rivals are stands in OUT/rivals.json, so that one that is missing
    is missed. Raises BadInput for what is missing or unknown, and SystemExit(2), in the end, where a case failed.
    """
    own = {"dataset_dir": dataset_dir, **dict(map(setting, settings))}
    folder, overlay = Path(output).expanduser(), task_config(task)
    fitted = rivals(overlay, own)
    places = {name: name.replace(", ", "_").replace(" ", "_") for name in fitted}
    write_json(folder / RIVALS, {"rivals": list(places.values())})
    for name, rival in fitted.items():
        print(f"rival: {name}", flush=True)
        of_run = {"output_dir": folder / places[name], "system": {"name": name}, "inferer": rival}
        with failures_in_results():
            run_workflow("evaluate", [overlay], run_id="evaluating", **{**own, **options, **WITHOUT_NETWORK, **of_run})
    results = load_results([str(folder)])
    print(markdown(rows_alone(results, FLOORS)))
    if any(result.failures for result in results):
        raise SystemExit(2)


def rivals(overlay: Path, options: dict[str, Any]) -> dict[str, Inferer]:
    """Those of a task, by name, from the simplest on. options: ids of `train_3d.yaml`."""
    config = load_config(config_files("train_3d", [overlay]), options)
    prepare, degradation = config.get_parsed_content("train#preprocessing"), config.get_parsed_content("degradation")
    samples = Samples.of(prepare(dict(case)) for case in config.get_parsed_content("train#cases"))
    return {**({} if degradation is None else interpolations(degradation)), **learned(samples, degradation)}
