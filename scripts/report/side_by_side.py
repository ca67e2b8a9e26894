# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts side_by_side`: what several systems made of one case, as in the paper's figure 3."""

import os
from collections.abc import Sequence
from pathlib import Path

from ..data.identifiers import FILE, Identifiers
from ..errors import BadInput
from ..measurement import Task
from ..running.record import record
from .planes_figure import planes_figure
from .run import NOT_FOR_DIAGNOSIS, cases_of, place_of_results, recorded_case, spacing_of
from .slices import MAPS


def apart(folders: Sequence[Path]) -> list[str]:
    """Each path as far as it differs from the others."""
    common = os.path.commonpath([folder.absolute() for folder in folders])
    return [folder.absolute().relative_to(common).as_posix() for folder in folders]


def side_by_side(run_dirs: Sequence[str], output: str = "side_by_side.png", *, case: str | None = None) -> None:
    """Write a picture of three planes: input, the result of every run, the truth, then their errors and uncertainties.

    run_dirs: output folders of `evaluate.yaml` on the same data; case: by default the first that all of them have.
    Raises BadInput for a case that one of them lacks, and for results that do not lie on one grid.
    """
    folders = [Path(name).expanduser() for name in run_dirs]
    records = [record(folder) for folder in folders]
    found = [
        cases_of(place_of_results(folder, results), results.get("failures", {}))
        for folder, results in zip(folders, records, strict=True)
    ]
    chosen = case or next((name for name in found[0] if all(name in others for others in found)), None)
    for folder, cases in zip(folders, found, strict=True):
        if chosen not in cases:
            raise BadInput(f"{folder}: has no result of {f'case {chosen}' if chosen else 'a case that all runs have'}")
    identities = [Identifiers(folder / FILE) for folder in folders]
    uids = [one.entries[chosen]["study_uid"] for one in identities if chosen in one.entries]
    for one in identities:
        one.check_same(str(chosen), next(iter(uids), ""))
    names = [results.get("system", {}).get("name") or folder.name for folder, results in zip(folders, records, strict=True)]
    places = apart(folders)
    names = [name if names.count(name) == 1 else f"{name} {place}" for name, place in zip(names, places, strict=True)]
    runs = {name: recorded_case(folder, str(chosen)) for name, folder in zip(names, folders, strict=True)}
    first = next(iter(runs.values()))
    images = {key: volume for key, volume in first.volumes.items() if key.startswith("input")}
    images |= {name: run.volumes["result"] for name, run in runs.items()}
    images |= {key: volume for key, volume in first.volumes.items() if key == "truth"}
    images |= {f"{kind} of {name}": run.volumes[kind] for kind in MAPS for name, run in runs.items() if kind in run.volumes}
    if len({volume.shape for volume in images.values()}) > 1:
        raise BadInput(f"{chosen}: the results lie on different grids; give runs of the same data and task")
    title, axes = f"{chosen}. {NOT_FOR_DIAGNOSIS}", Task.of(records[0]).axes
    planes_figure(images, Path(output).expanduser(), title, spacing=spacing_of(first), axes=axes, own=first.own)
    print(output)
