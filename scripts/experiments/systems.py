# SPDX-License-Identifier: Apache-2.0
"""What is trained and what is compared, a line each; docs/systems.md explains the systems."""

from collections.abc import Mapping
from typing import Any, NamedTuple

THREE = ["coronal", "sagittal", "axial"]
SMALLER = {"published": "small", "compact": "compact_small", "tiny": "tiny"}  # the same planes with a smaller fusion
ONCE, SEVERAL = "once", "several"


class Training(NamedTuple):
    """One training. overlays: after the workflow and the task; members: the group of planes that it fuses, if it does.

    start: a training whose fusion this one goes on from; share: of the steps that trainings of its workflow have; small: take
    the smaller fusion of the size that is asked for.
    """

    workflow: str
    overlays: str = ""
    options: Mapping[str, Any] = {}
    members: str = ""
    start: str = ""
    share: float = 1.0
    small: bool = False

    @property
    def volumes(self) -> bool:
        """Whether it goes on with full volumes where another training left off with patches."""
        return bool(self.start) and self.options.get("patch", ()) is None


class System(NamedTuple):
    """One row of the results. weights: a training, or a group of planes that are used together as they are.

    steps: "once" for what was trained to answer in one step, "several" for what is another system in one.
    """

    weights: str
    overlays: str = ""
    options: Mapping[str, Any] = {}
    steps: str = ""


# Planes trained alone, by group: one file of them serves every ensemble without learned weights.
GROUPS = {
    "pair": [f"plane_{plane}" for plane in THREE[:2]],
    "planes": [f"plane_{plane}" for plane in THREE],
    "slabs": [f"slab_{plane}" for plane in THREE],
    "modalities": [f"modality_{seen}_{plane}" for seen in (0, 1) for plane in THREE[:2]],
}
PATTERNS = {"pair": "plane_{plane}", "planes": "plane_{plane}", "slabs": "slab_{plane}",
            "modalities": "modality_{seen}_{plane}"}  # fmt: skip
# Single conditions of `task_both`: low-resolution FLAIR, and T1ce, on the scale of diffusion that both must share.
SEEN = {0: Training("train_2d", options={"conditions": ["flair"]}),
        1: Training("train_2d", "task_translation", {"sigma_data": 0.085})}  # fmt: skip
FULL = {"patch": None, "checkpointing": True}
VOLUMES = Training("train_3d", "ensemble_tpdm phase_1", FULL, members="pair", share=0.2)  # a volume is several patches
TRAININGS = {
    **{f"plane_{plane}": Training("train_2d", options={"plane": plane}) for plane in THREE},
    **{f"slab_{plane}": Training("train_2d", options={"plane": plane, "slab": 5}) for plane in THREE},
    **{f"modality_{seen}_{plane}": training._replace(options={**training.options, "plane": plane})
       for seen, training in SEEN.items() for plane in THREE[:2]},
    "unet_2d": Training("train_2d", "regression", {"plane": "axial"}),
    "pix2pix_2d": Training("train_2d", "gan_pix2pix", {"plane": "axial"}),
    "i2sb": Training("train_2d", "bridge_i2sb", {"plane": "axial"}),
    "unet_3d": Training("train_3d", "network_volume regression"),
    "pix2pix_3d": Training("train_3d", "network_volume gan_pix2pix"),
    "palette_3d": Training("train_3d", "network_volume"),
    "tpdm": Training("train_3d", "ensemble_tpdm", members="pair"),
    "tosm": Training("train_3d", "ensemble_tosm", members="planes"),
    "madm": Training("train_3d", "ensemble_madm", members="slabs"),
    "small": Training("train_3d", "ensemble_tpdm phase_1", members="pair", small=True),
    "modality_fusion": Training("train_3d", "network_modalities", members="modalities"),
    "modality_fusion_small": Training("train_3d", "network_modalities", members="modalities", small=True),
    "patches": Training("train_3d", "ensemble_tpdm phase_1", members="pair"),
    "volumes": VOLUMES._replace(start="patches"),
    "features_volumes": VOLUMES._replace(start="tpdm", overlays="ensemble_tpdm"),
    "small_volumes": VOLUMES._replace(start="small", small=True),
}  # fmt: skip
AXIAL = {"planes": ["axial"], "fusion": False}
AVERAGE, FREE = {"fusion": False}, {"consistency": False}
SYSTEMS = {
    "pix2pix": System("pix2pix_2d", "ensemble_single", AXIAL, ONCE),
    "u_net": System("unet_2d", "ensemble_single", AXIAL, ONCE),
    "palette": System("plane_axial", "ensemble_single", AXIAL),
    "i2sb": System("i2sb", "ensemble_single bridge_i2sb", AXIAL),
    "palette_3d": System("palette_3d", "network_volume"),
    "pix2pix_3d": System("pix2pix_3d", "network_volume", {}, ONCE),
    "u_net_3d": System("unet_3d", "network_volume", {}, ONCE),
    "palette_2_5d": System("slab_axial", "ensemble_single", {**AXIAL, "slab": 5}),
    "yoda": System("slabs", "ensemble_madm combine_once", {}, ONCE),
    "tpdm": System("pair", "ensemble_tpdm", AVERAGE),
    "tpdm_alternate": System("pair", "ensemble_tpdm combine_alternate", {}, SEVERAL),
    "ours_tpdm": System("tpdm", "ensemble_tpdm"),
    "ours_tpdm_small": System("small", "ensemble_tpdm phase_1"),
    "tosm": System("planes", "ensemble_tosm", AVERAGE),
    "ours_tosm": System("tosm", "ensemble_tosm"),
    "madm": System("slabs", "ensemble_madm", AVERAGE),
    "madm_states": System("slabs", "ensemble_madm sampler_reference combine_states", {}, SEVERAL),
    "ours_madm": System("madm", "ensemble_madm"),
    # Section 3.4, table 3: planes of one condition each
    "tpdm_modalities": System("modality_fusion", "network_modalities", AVERAGE),
    "ours_modalities_small": System("modality_fusion_small", "network_modalities"),
    "ours_modalities": System("modality_fusion", "network_modalities"),
    # Table 4: consistency, full volumes after patches, features, a smaller fusion
    "ablation_none": System("patches", "ensemble_tpdm phase_1", FREE),
    "ablation_consistency": System("patches", "ensemble_tpdm phase_1"),
    "ablation_volumes": System("volumes", "ensemble_tpdm phase_1"),
    "ablation_features": System("tpdm", "ensemble_tpdm"),
    "ablation_all": System("features_volumes", "ensemble_tpdm"),
    "ablation_small": System("small_volumes", "ensemble_tpdm phase_1"),
}
ABLATIONS = ("tpdm", *(name for name in SYSTEMS if name.startswith("ablation")))
MODALITIES = ("tpdm_modalities", "ours_modalities_small", "ours_modalities")
COMPARED = tuple(name for name in SYSTEMS if name not in (*ABLATIONS[1:], *MODALITIES))


class Experiment(NamedTuple):
    """A task and the systems that are compared on it."""

    task: str
    systems: tuple[str, ...] = COMPARED


EXPERIMENTS = {
    "super_resolution": Experiment("task_super_resolution"),
    "thick_slice": Experiment("task_super_resolution_thick_slice"),
    "thick_planes": Experiment("task_thick_planes", ("palette", "tpdm", "ours_tpdm")),
    "translation": Experiment("task_translation"),
    "both": Experiment("task_both", (*COMPARED, *MODALITIES)),
    "modalities": Experiment("task_both", (*MODALITIES, "tpdm", "ours_tpdm")),
    "ablations": Experiment("task_super_resolution", ABLATIONS),
}
