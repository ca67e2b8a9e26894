# SPDX-License-Identifier: Apache-2.0
"""The app: which tasks of the bundle the server offers, and where the uncertainty goes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelException

from scripts.bundle import task_configs
from scripts.errors import BadInput, root_cause

from .infer import TranslationTask
from .task import StudyTask
from .train import TranslationTraining

UNCERTAINTY = "uncertainty"


class TranslationApp(MONAILabelApp):
    """Offers every task of `configs/task_*.yaml` for inference, as far as there are weights, and for training.

    conf: `models`, names of tasks with commas between (default: all whose weights are offered, see `Limits`); `overlays`,
    further files of `configs` with commas between; `weights`, a file to use instead of the shipped ones, for a single task;
    `runs`, a folder for what is trained.
    Raises BadInput when a name is unknown.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        named = _listed(conf.get("models", ""))
        names = named or list(task_configs())
        if "weights" in conf and len(names) > 1:
            raise BadInput(f"--conf weights {conf['weights']}: belongs to one task; name it with --conf models")
        places: dict[str, Any] = {key: conf.get(key) for key in ("weights", "runs")}
        self.tasks = {name: StudyTask(name, studies, overlays=_listed(conf.get("overlays", "")), **places) for name in names}
        if not named:
            self.tasks = {name: task for name, task in self.tasks.items() if task.limits.offered}
        about = "Volume-to-volume MR translation. Research use; synthetic images are not for diagnosis."
        super().__init__(app_dir, studies, dict(conf), name="Score-Fusion", description=about)

    def init_infers(self) -> dict[str, TranslationTask]:
        """One model a task; those without weights do not show."""
        return {name: TranslationTask(task) for name, task in self.tasks.items()}

    def init_trainers(self) -> dict[str, TranslationTraining]:
        """One training a task."""
        return {name: TranslationTraining(task) for name, task in self.tasks.items()}

    def next_sample(self, request: dict[str, Any]) -> Any:
        """The image that a strategy names. Raises HTTPException 400 where there is no such strategy."""
        with refusals():
            return super().next_sample(request)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """The result; its uncertainty, if there is one, becomes a label of the folder's image with the tag `uncertainty`.

        Raises HTTPException 400 with the one line that says what the user can mend.
        """
        store = datastore or self.datastore()
        image = request.get("image")
        with refusals():
            if isinstance(image, str) and not Path(image).exists() and not store.get_image_uri(image):
                raise BadInput(f"{image}: there is no such image among the studies; GET /datastore/?output=all lists them")
            result = super().infer(request, store)
        file = result["params"].pop(UNCERTAINTY, None)
        if file is not None:
            if isinstance(store, LocalDatastore) and store.get_image_uri(image):
                label = store.save_label(image, file, UNCERTAINTY, {"model": request["model"]})
                result["params"][UNCERTAINTY] = {"label": label, "tag": UNCERTAINTY}
            Path(file).unlink()
        return result


@contextmanager
def refusals() -> Iterator[None]:
    """What a client can mend, also where MONAI Label says so, is an answer of one line with status 400."""
    try:
        yield
    except Exception as error:
        line = error.msg if isinstance(error, MONAILabelException) else root_cause(error)
        if line is None:
            raise
        raise HTTPException(status_code=400, detail=str(line)) from error


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
