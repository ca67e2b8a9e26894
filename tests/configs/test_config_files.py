# SPDX-License-Identifier: Apache-2.0
import ast
import copy
import itertools
import re
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts import bundle_root
from scripts.errors import BadInput
from scripts.measurement import Task
from scripts.measurement.planes import SPACE_TIME
from scripts.running.checks import preflight
from scripts.running.workflow import config_files

ROOT = Path(bundle_root())
CONFIGS = ROOT / "configs"
RUN_IDS = {
    "train_2d": {"training"},
    "train_3d": {"training"},
    "train": {"run"},
    "inference": {"run", "inference"},
    "evaluate": {"evaluating"},
}
SEGMENTATION = {"train_segmentation": {"training"}, "evaluate_downstream": {"evaluating"}}  # without diffusion
WORKFLOWS = RUN_IDS | SEGMENTATION
BUILT = sorted(set(RUN_IDS) - {"train"})  # which is train_3d leaf by leaf, as a test says
DEVICE = "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')"  # as in every bundle of MONAI
# Every `$` expression of our configs, and how often it stands there: they wire, and what computes is Python's.
EXPRESSIONS = {
    "$len(@conditions)": 6,
    "$@evaluator.run()": 4,
    "$@train#trainer.run()": 4,
    "$@trained.parameters()": 4,
    "$None if @keep_ids else @ckpt_dir + '/identifiers.json'": 4,
    "$@max_epochs * @steps_per_epoch": 3,
    DEVICE: 3,
    "$@batch_size * @steps_per_epoch * @processes": 2,
    "$@ema.ema_model": 2,
    "$@kept.prepare()": 2,
    "$@num_workers > 0": 2,
    "$@device.type == 'cuda'": 2,
    "$None if @keep_ids else @output_dir + '/identifiers.json'": 2,
    "$int(@degradation is not None)": 2,
    "$len(@planes)": 2,
    "$len(@regions)": 2,
    "$@diffusion.noise": 1,
    "$@inferer.nfe": 1,
    "$@interval.identity()": 1,
    "$@limits.caveat": 1,
    "$@network.members[0].denoiser": 1,
    "$@network.to(@device)": 1,
    "$@network_def.to(@device, memory_format=torch.channels_last_3d)": 1,
    "$@train#handlers[: None if @rank == 0 else 5]": 1,
    "$@validate#handlers if @rank == 0 else []": 1,
    "$len(@conditions) * @slab + 5": 1,
    "$len(@patch)": 1,
}
MOST_EXPRESSIONS = 60
EVERYWHERE, FUSED, FUSION_TRAINING = set(RUN_IDS), set(RUN_IDS) - {"train_2d"}, {"train_3d", "train"}
# Which config files the overlays of a group, by the first word of their names, may follow.
FITS = {
    "task": EVERYWHERE,
    "size": EVERYWHERE,
    "sampler": EVERYWHERE,
    "method": EVERYWHERE,
    "ensemble": FUSED,
    "network": FUSED,
    "combine": {"inference", "evaluate"},
    "regression": EVERYWHERE,
    "bridge": EVERYWHERE,
    "gan": {"train_2d", "train_3d", "train"},
    "scans": {"train_2d", "train_3d", "train"},
    "phase": FUSION_TRAINING,
    "multi": {"train_2d", "train_3d", "train", "train_segmentation"},
    "low": EVERYWHERE,
    "uncertainty": EVERYWHERE,
    "predictions": {"evaluate"},
    "regions": set(SEGMENTATION),
    "downstream": {"evaluate_downstream"},
}
# Not as their groups: what the first changes, inference of its weights needs, too; the second is a plane's training.
ALONE = {"phase_1": FUSED, "network_space_time": {"train_2d"}}
FILES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
OVERLAYS = [name for name in FILES if name not in WORKFLOWS]
PAIRS = [(base, overlay) for overlay in OVERLAYS for base in WORKFLOWS]


def group(name):
    return [None, *(overlay for overlay in OVERLAYS if overlay.split("_")[0] == name)]


@cache
def load(name):
    """A file as it stands."""
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def parser(base, *overlays):
    """What MONAI makes of a workflow with what it goes over, and overlays: later ones replace ids of earlier ones."""
    files = config_files(base, list(filter(None, overlays)))
    return ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))


@cache
def whole(base):
    """A workflow with what it goes over, without what it does not use of that."""
    config = copy.deepcopy(parser(base).get())
    for key in config.get("_without_", []):
        config.pop(key)
    return config


def leaves(config, path=""):
    """Every (path, value) that is neither a list nor a mapping."""
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from leaves(value, f"{path}#{key}".lstrip("#"))
    else:
        yield path, config


def has_id(config, key):
    for part in key.split("#"):
        if isinstance(config, list) and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, dict) and part in config:
            config = config[part]
        else:
            return False
    return True


def test_every_overlay_belongs_to_a_group():
    assert {name.split("_")[0] for name in OVERLAYS} == set(FITS)


@pytest.mark.parametrize("name", FILES)
def test_yaml_reads_numbers_as_numbers(name):
    texts = {path: value for path, value in leaves(load(name)) if isinstance(value, str)}
    assert not [path for path, value in texts.items() if re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?", value, re.IGNORECASE)]


@pytest.mark.parametrize("name", FILES)
def test_expressions_make_one_call_at_most_and_import_nothing_of_ours(name):
    for path, value in leaves(load(name)):
        if isinstance(value, str) and value.startswith("$") and value != DEVICE:
            tree = ast.parse(re.sub(r"@[\w#]+", "reference", value[1:]))
            assert sum(isinstance(node, ast.Call) for node in ast.walk(tree)) <= 1, path


def test_every_expression_is_listed_and_imports_nothing():
    found = Counter(value for name in FILES for _, value in leaves(load(name)) if str(value).startswith("$"))
    assert found == EXPRESSIONS
    assert found.total() <= MOST_EXPRESSIONS
    assert not [value for value in found if re.search(r"import|__|\b(os|sys|open|eval|exec|scripts)\b", value)]


@pytest.mark.parametrize("name", FILES)
def test_every_target_of_ours_can_be_imported(name):
    targets = [value for path, value in leaves(load(name)) if path.split("#")[-1] == "_target_"]
    for target in targets:
        assert target.startswith("scripts.") or "scripts" not in target
        if target.startswith("scripts."):
            module, _, attribute = target.rpartition(".")
            assert callable(getattr(import_module(module), attribute)), target


@pytest.mark.parametrize("name", FILES)
def test_every_config_says_what_it_is_for(name):
    assert len(load(name)["_desc_"]) > 10


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_short(name):
    assert len((CONFIGS / f"{name}.yaml").read_text().splitlines()) <= 30


@pytest.mark.parametrize(("base", "overlay"), PAIRS)
def test_an_overlay_is_taken_exactly_where_it_changes_something(base, overlay):
    files = config_files(base, [overlay])
    arguments = ["run", "--config_file", str([str(file) for file in files])]
    known = whole(base) | dict.fromkeys(load(overlay).get("_with_", []))
    holds = {key: load(base)[key] for key in load(base).get("_without_", []) if key in load(base)}
    said = {key for key, value in load(overlay).items() if holds.get(key, ...) != value}  # of the others nothing changes
    missing = [key for key in load(overlay) if key in said and key[0] != "_" and not has_id(known, key.lstrip("+"))]
    if base in ALONE.get(overlay, FITS[overlay.split("_")[0]]):
        assert not missing
        preflight(arguments)
    elif (over := load(overlay).get("_over_", files[0].name)) not in [file.name for file in files]:
        with pytest.raises(BadInput, match=rf"^{overlay}\.yaml: changes {over} alone"):
            preflight(arguments)
    else:
        assert missing
        with pytest.raises(BadInput, match=rf"^{overlay}\.yaml: '{missing[0]}' is not in {base}\.yaml"):
            preflight(arguments)


def test_groups_of_overlays_do_not_undo_each_other():
    """So that every combination is covered by combinations within network and within diffusion."""
    keys = {name: {key.split("#")[0].lstrip("+") for key in load(name) if key[0] != "_"} for name in OVERLAYS}
    meant = {frozenset(pair) for pair in (("sampler", "method"), ("task", "method"), ("uncertainty", "sampler"),
                                          ("uncertainty", "method"))}  # sampler and steps; sigma_data  # fmt: skip
    # Systems (docs/systems.md) that are one or the other: a bridge has its sampler, a generator no noise, a volume no planes.
    meant |= {frozenset(pair) for pair in (("bridge", "sampler"), ("bridge", "method"), ("bridge", "uncertainty"),
                                           ("regression", "method"), ("regression", "gan"), ("gan", "method"),
                                           ("gan", "multi"), ("network", "ensemble"), ("network", "phase"),
                                           ("combine", "predictions"), ("multi", "scans"), ("regression", "scans"),
                                           ("gan", "scans"), ("method", "scans"), ("bridge", "scans"),
                                           ("task", "size"), ("network", "scans"), ("network", "gan"),
                                           ("task", "combine"))}  # fmt: skip
    for first, second in itertools.combinations(OVERLAYS, 2):
        groups = frozenset({first.split("_")[0], second.split("_")[0]})
        if not set.intersection(*(FITS[name] for name in groups)):
            continue  # never given together
        assert len(groups) == 1 or groups in meant or not keys[first] & keys[second], (first, second)


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name.startswith("task_")])
def test_every_task_says_how_large_its_residual_is(name):
    sigma = load(name)["sigma_data"]
    assert isinstance(sigma, float)
    assert 0 < sigma < 1


@pytest.mark.parametrize("base", ["inference", "evaluate"])
@pytest.mark.parametrize("overlay", group("task"))
def test_records_hold_the_task_that_the_inferer_has(base, overlay):
    config = parser(base, overlay, "method_published")
    task, inferer = (config.get_parsed_content(key) for key in ("task", "inferer"))
    told = Task.of(task.content())
    assert told == task
    assert (list(told.conditions), told.target) == (config["conditions"], config["target"])
    assert told.kind != "unknown task"
    assert [scan.factors for scan in told.scans] == [scan.factors for scan in (inferer.degradation.scans if told.scans else [])]
    assert not told.scans or told.degradation.smooth is inferer.degradation.smooth is False


@pytest.mark.parametrize("task", group("task"), ids=lambda name: name or "default")
@pytest.mark.parametrize("base", ["train_2d", "inference"])  # of the others a test below says that they wire the same
def test_networks_of_every_combination_build(base, task):
    ensembles = group("ensemble") if base in FITS["ensemble"] else [None]
    phases = group("phase")[:2] if base in ALONE["phase_1"] else [None]
    sizes = [None] if task else group("size")  # a task changes the number of conditions alone
    for ensemble, size, phase in itertools.product(ensembles, sizes, phases):
        config = parser(base, task, ensemble, size, phase)
        if task:
            config["size"] = "tiny"
        with torch.device("meta"):  # no memory, whatever the size
            network = config.get_parsed_content("network_def")
        planes = [config["plane"]] if "plane" in config else config.get_parsed_content("planes")
        assert [member.plane for member in network.members] == planes
        assert {member.slab for member in network.members if member.plane != SPACE_TIME} == {config["slab"]}
        assert {member.conditions for member in network.members} == {len(config["conditions"])}
        assert bool(network.members[0].alignments) == (base in FUSED and phase != "phase_1" and config["fusion"])


@pytest.mark.parametrize("base", BUILT)
def test_inferers_of_every_combination_build(base):
    for task, method, sampler in itertools.product(group("task"), group("method"), group("sampler")):
        config = parser(base, task, method, sampler)
        inferer, degradation, diffusion = (config.get_parsed_content(key) for key in ("inferer", "degradation", "diffusion"))
        assert inferer.diffusion is diffusion
        assert inferer.degradation is degradation
        # a linear schedule begins with steps that see nothing but noise, and the inferer leaves them out
        linear = config["schedule"]["kind"] == "linear"
        taken = len(inferer.gammas) - 1
        assert taken <= config["steps"] if linear else taken == config["steps"]
        assert diffusion.prediction == ("epsilon" if method else "v")
        if degradation is None:
            assert config["target"] not in config["conditions"]
        else:
            assert list(degradation.factors) == config["block"]
            assert degradation.smooth == (method is None)


@pytest.mark.parametrize("size", ["published", "small"])
def test_the_published_sizes_have_the_published_numbers_of_parameters(size):
    config = parser("inference", f"size_{size}")
    with torch.device("meta"):
        network = config.get_parsed_content("network_def")
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (network.members[0].denoiser, network.fusion)]
    described = load("size_published")["_desc_"]
    assert f"{millions[0]:.1f} M a plane" in described
    if size == "published":
        assert f"{millions[1]:.1f} M fusion" in described


@pytest.mark.parametrize("base", ["train_2d", "train_3d"])
def test_the_learning_rate_rises_to_what_is_asked_for_and_falls_to_almost_nothing(base):
    config = parser(base)
    config["learning_rate"], config["warmup_steps"], config["max_epochs"], config["steps_per_epoch"] = 0.5, 20, 3, 40
    weight = torch.zeros(1, requires_grad=True)
    config["optimizer"] = {"_target_": "torch.optim.SGD", "params": [weight], "lr": "@learning_rate"}
    optimizer, scheduler = config.get_parsed_content("optimizer"), config.get_parsed_content("lr_scheduler")
    rates = []
    for _ in range(121):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert 0 < rates[0] <= 0.005
    assert all(before < after for before, after in itertools.pairwise(rates[:21]))
    assert rates[20] == 0.5
    assert all(before > after for before, after in itertools.pairwise(rates[20:]))
    assert rates[-1] == 1e-6


def test_train_is_train_3d_under_the_run_id_of_monai_label():
    """Label looks for `run` in this file; with two run ids it would train twice."""
    label, fusion = (dict(load(name)) for name in ("train", "train_3d"))
    assert label.pop("_desc_") != fusion.pop("_desc_")
    assert label.pop("run") == fusion.pop("training")
    assert label == fusion
    assert list(label) == list(fusion)


# What inference.yaml and train_3d.yaml say both, for both are complete in themselves; and what they say differently.
DIFFERENT = {"_desc_", "network", "handlers", "preflight", "regression_share", "preprocessing", "postprocessing", "dataset"}


def test_what_stands_in_two_complete_workflows_is_the_same_leaf_by_leaf():
    inference, training = load("inference"), load("train_3d")
    both = [key for key in inference if key in training and key not in DIFFERENT]
    assert len(both) >= 30
    for key in both:
        assert dict(leaves(inference[key])) == dict(leaves(training[key])), key


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_no_overlay_counts_in_a_list(name):
    """Entries of lists are addressed by name: an index means another entry as soon as one is put before it."""
    for overlay in OVERLAYS:
        assert not [key for key in load(overlay) if re.search(r"#\d", key)]


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_configs_offer_their_run_ids_alone_and_check_the_input_first(name):
    config = load(name)
    known = {"run", "inference", "training", "evaluating"}
    assert known & set(config) == WORKFLOWS[name]
    assert config["preflight"]["arguments"] == {"_target_": "scripts.running.command_line"}
    for run_id in WORKFLOWS[name]:
        assert config[run_id][0] == "@preflight"
        assert config[run_id][-1].endswith(".run()")
        if name.startswith("train"):
            assert config[run_id][:3] == ["@preflight", "@seeding", "@start"]  # before what takes minutes


@pytest.mark.parametrize("name", ["train_2d", "train_3d", "train_segmentation"])
def test_multi_gpu_keeps_the_five_handlers_that_every_process_needs(name):
    handlers = parser(name)["train"]["handlers"]
    ours = ["scripts.training.LatestCheckpoint", "scripts.training.BoundedGradients"]
    wanted = ["LrScheduleHandler", "scripts.training.AveragedWeights", *ours, "ValidationHandler"]
    assert [handler["_target_"] for handler in handlers[:5]] == wanted
    assert load("multi_gpu")["train#trainer#train_handlers"].endswith("else 5]")
    assert parser(name)["ema"] == f"@train#handlers#{wanted.index('scripts.training.AveragedWeights')}"


def test_both_copies_of_the_metadata_are_the_same():
    assert (CONFIGS / "metadata.json").read_bytes() == (ROOT / "metadata.json").read_bytes()
