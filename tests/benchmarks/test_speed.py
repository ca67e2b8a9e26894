# SPDX-License-Identifier: Apache-2.0
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from scripts.benchmarks import memory as memory_module
from scripts.benchmarks import speed as module
from scripts.benchmarks.memory import measure, memory
from scripts.errors import BadInput
from scripts.inferers.devices import device_name
from scripts.networks import ScoreFusion
from scripts.networks.engine import has_openvino
from scripts.networks.presets import SIZES


def test_table_holds_ratios_of_the_figures_below_them(tmp_path, capsys, monkeypatch):
    for name, side in (("LIMIT_SIDE", 8), ("LIMIT_MATRIX", 256), ("PLAIN_CROP", 32), ("PLAIN_SLICES", 2)):
        monkeypatch.setattr(module, name, side)
    figures = module.speed("tiny", [32, 32, 32], box=[24, 24, 24], json_path=str(tmp_path / "speed.json"))
    ratio = figures["plain, a step: s"] / figures["ours, a step: s"]
    assert figures["plain / ours, a step, same voxels"] == pytest.approx(ratio)
    ratio = figures["best plain, a step: s"] / figures["ours, a step, the head's box, torch: s"]
    assert figures["best plain / ours, a step, a head"] == pytest.approx(ratio)
    limit = figures[[name for name in figures if name.startswith("limit, convolution")][-1]]
    assert figures["ours / limit"] == pytest.approx(figures["ours, a step: GFLOP/s"] / limit)
    assert all(value > 0 for value in figures.values())
    saved = json.loads((tmp_path / "speed.json").read_text())
    assert {key: saved[key] for key in figures} == figures
    assert saved["device"] == device_name(torch.device("cpu")) or torch.cuda.is_available()
    ways = [name for name in figures if name.startswith("ours, a step, the head's box")]
    assert len(ways) == len(saved["backends"]) == (3 if has_openvino() and not torch.cuda.is_available() else 1)
    printed = capsys.readouterr().out
    assert all(name in printed for name in figures)


def test_operations_are_those_of_the_convolutions(seed):
    network = ScoreFusion(["axial"], size="tiny", fusion=False)
    sides, flops = (18, 20, 22), []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, y: flops.append(2 * y.numel() * layer.weight[0].numel()))
    with torch.no_grad():
        network(torch.randn(1, 5, *sides))
    with torch.device("meta"):
        counted = module.operations(ScoreFusion(["axial"], size="tiny", fusion=False), sides)
    assert counted == pytest.approx(sum(flops), rel=0.1)  # the counter adds embeddings and attention


def test_plain_network_is_as_large_as_ours():
    size = SIZES["compact"].plane
    plain = module.plain_network(2, 6, 1, size)
    ours = ScoreFusion(["axial"], size="compact", fusion=False).members[0].denoiser
    count = [sum(parameter.numel() for parameter in network.parameters()) for network in (plain, ours)]
    assert count[0] == pytest.approx(count[1], rel=0.15)


def test_memory_of_an_evaluation_is_measured_beside_its_prediction():
    row = measure("tiny", 24, 1)
    assert row["peak_gb"] > 0.1  # torch itself
    assert row["predicted_gb"] > 0
    assert row["seconds"] > 0


def test_the_table_of_memory_is_that_of_its_file_and_larger_cubes_are_predicted_to_need_more(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory_module, "ProcessPoolExecutor", lambda count, mp_context: ThreadPoolExecutor(count))
    rows = memory("tiny", (16, 32), rungs=(1,), output=str(tmp_path / "memory"))
    assert json.loads((tmp_path / "memory.json").read_text()) == {"size": "tiny", "rows": rows}
    assert [row["side"] for row in rows] == [16, 32] and rows[0]["predicted_gb"] < rows[1]["predicted_gb"]
    printed = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[2] for line in printed] == [f"{row['peak_gb']:.2f}" for row in rows]
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ({"sides": (96, 0)}, "--sides 0: a cube has at least 1 voxel a side"),
        ({"sides": (-8,)}, "--sides -8: a cube"),
        ({"rungs": (0, 99)}, "--rungs 99: the ladder's rungs are 0 to 3"),
        ({"rungs": (-1,)}, "--rungs -1: the ladder"),
        ({"size": "hugely"}, "no network size 'hugely'"),
    ],
    ids=str,
)
def test_what_has_no_memory_is_refused_before_anything_is_measured(numbers, line, monkeypatch):
    monkeypatch.setattr(memory_module, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("something was measured"))
    with pytest.raises(BadInput, match=line):
        memory(**numbers)
