# SPDX-License-Identifier: Apache-2.0
"""What is trained and what is compared, a line each; docs/systems.md explains the systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

THREE = ["coronal", "sagittal", "axial"]


class Training(NamedTuple):
    """One training. overlays: after the workflow and the task; members: the group of planes that it fuses, if it does."""

    workflow: str
    overlays: str = ""
    options: Mapping[str, Any] = {}
    members: str = ""


class System(NamedTuple):
    """One row of the results. weights: a training, or a group of planes that are used together as they are."""

    weights: str
    overlays: str = ""
    options: Mapping[str, Any] = {}


# Planes trained alone, by group: one file of them serves every ensemble without learned weights.
GROUPS = {
    "planes": [f"plane_{plane}" for plane in THREE],
    "slabs": [f"slab_{plane}" for plane in THREE],
}
TRAININGS = {
    **{f"plane_{plane}": Training("train_2d", options={"plane": plane}) for plane in THREE},
    **{f"slab_{plane}": Training("train_2d", options={"plane": plane, "slab": 5}) for plane in THREE},
    "unet_2d": Training("train_2d", "regression", {"plane": "axial"}),
    "pix2pix_2d": Training("train_2d", "gan_pix2pix", {"plane": "axial"}),
    "i2sb": Training("train_2d", "bridge_i2sb", {"plane": "axial"}),
    "unet_3d": Training("train_3d", "network_volume regression"),
    "pix2pix_3d": Training("train_3d", "network_volume gan_pix2pix"),
    "palette_3d": Training("train_3d", "network_volume"),
    "tpdm": Training("train_3d", "ensemble_tpdm", members="planes"),
    "tosm": Training("train_3d", "ensemble_tosm", members="planes"),
    "madm": Training("train_3d", "ensemble_madm", members="slabs"),
    "tpdm_without_features": Training("train_3d", "ensemble_tpdm phase_1", members="planes"),
}
AXIAL = {"planes": ["axial"], "fusion": False}
SYSTEMS = {
    "unet": System("unet_2d", "ensemble_single", AXIAL),
    "unet_3d": System("unet_3d", "network_volume"),
    "pix2pix": System("pix2pix_2d", "ensemble_single", AXIAL),
    "pix2pix_3d": System("pix2pix_3d", "network_volume"),
    "i2sb": System("i2sb", "ensemble_single bridge_i2sb", AXIAL),
    "palette": System("plane_axial", "ensemble_single", AXIAL),
    "palette_2_5d": System("slab_axial", "ensemble_single", {**AXIAL, "slab": 5}),
    "palette_3d": System("palette_3d", "network_volume"),
    "tpdm": System("planes", "ensemble_tpdm", {"fusion": False}),
    "tpdm_alternate": System("planes", "ensemble_tpdm combine_alternate"),
    "tosm": System("planes", "ensemble_tosm", {"fusion": False}),
    "madm": System("slabs", "ensemble_madm", {"fusion": False}),
    "madm_states": System("slabs", "ensemble_madm combine_states"),
    "yoda": System("slabs", "ensemble_madm combine_once"),
    "ours_tpdm": System("tpdm", "ensemble_tpdm"),
    "ours_tosm": System("tosm", "ensemble_tosm"),
    "ours_madm": System("madm", "ensemble_madm"),
    "ours_tpdm_without_features": System("tpdm_without_features", "ensemble_tpdm phase_1"),
    "ours_tpdm_without_consistency": System("tpdm", "ensemble_tpdm", {"consistency": False}),
    "tpdm_without_consistency": System("planes", "ensemble_tpdm", {"fusion": False, "consistency": False}),
}
ABLATIONS = ("tpdm", "tpdm_without_consistency", "ours_tpdm", "ours_tpdm_without_features", "ours_tpdm_without_consistency")
COMPARED = tuple(name for name in SYSTEMS if "without" not in name)


class Experiment(NamedTuple):
    """A task and the systems that are compared on it."""

    task: str
    systems: tuple[str, ...] = COMPARED


EXPERIMENTS = {
    "super_resolution": Experiment("task_super_resolution"),
    "thick_slice": Experiment("task_super_resolution_thick_slice"),
    "translation": Experiment("task_translation"),
    "both": Experiment("task_both"),
    "ablations": Experiment("task_super_resolution", ABLATIONS),
}
