# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from monai.bundle import ckpt_export

from scripts import bundle_root
from scripts.diffusion import SAMPLERS, Alternating, Diffusion, NoiseSchedule, sample_ancestral, sample_ddim, sample_heun
from scripts.errors import BadInput
from scripts.inferers import ExportedSampler, FusedScoreInferer
from scripts.measurement import BlockAverage, ThickScans
from scripts.networks import ScoreFusion

CONFIGS = Path(bundle_root(), "configs")
STRANGER = """
import importlib.util, sys
sys.modules["monai"] = None  # an import of it fails
assert importlib.util.find_spec("scripts") is None
import torch
volumes, results, *models = sys.argv[1:]
volumes, said = torch.load(volumes), []
with torch.no_grad(), torch.jit.optimized_execution(False):  # which takes longer than the network
    for sampler in map(torch.jit.load, models):
        said.append([sampler(volume) for volume in volumes])
        sampler.seed.add_(1)
        said[-1].append(sampler(volumes[0]))
torch.save(said, results)
"""


def scripted(inferer, network, path):
    """What a file of the exported sampler says."""
    torch.jit.script(ExportedSampler(inferer, network)).save(path)
    loaded = torch.jit.load(path)

    def say(volume):
        with torch.no_grad(), torch.jit.optimized_execution(False):
            return loaded(volume)

    return say


@pytest.mark.filterwarnings("ignore")
def test_a_process_with_torch_alone_says_what_the_bundle_says(tmp_path, draw_head, awaken, seed):
    network = awaken(ScoreFusion(size="tiny", features=False)).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    files = {"ckpt_file": str(tmp_path / "model.pt"), "meta_file": str(CONFIGS / "metadata.json")}
    kinds = [(1, "ddim", True), (3, "ancestral", False)]
    for steps, sampler, consistency in kinds:
        options = {"sampler#_target_": f"scripts.diffusion.sample_{sampler}", "steps": steps, "consistency": consistency}
        ckpt_export(
            net_id="sampler_def", filepath=str(tmp_path / f"{sampler}.ts"), config_file=str(CONFIGS / "inference.yaml"),
            size="tiny", features=False, seed=seed, **files, **options,
        )  # fmt: skip
    volumes = [900 * draw_head(20, 24, 20), torch.rand(2, 1, 24, 20, 28)]
    torch.save(volumes, tmp_path / "volumes.pt")
    paths = [str(tmp_path / name) for name in ("volumes.pt", "results.pt", *(f"{sampler}.ts" for _, sampler, _ in kinds))]
    subprocess.run([sys.executable, "-I", "-c", STRANGER, *paths], cwd=tmp_path, check=True, capture_output=True)
    for (steps, sampler, consistency), results in zip(kinds, torch.load(paths[1]), strict=True):
        inferer = FusedScoreInferer(
            Diffusion(sigma_data=0.058), SAMPLERS[sampler], steps=steps, precision="float32",
            degradation=BlockAverage((4, 4, 4), consistency=consistency),
        )  # fmt: skip
        wanted = [inferer(volume, network, seed=seed) for volume in volumes] + [inferer(volumes[0], network, seed=seed + 1)]
        for volume, result, expected in zip([*volumes, volumes[0]], results, wanted, strict=True):
            assert (expected - volume).abs().max() > 0.01 * volume.max()  # the network did add something
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-4 * float(volume.max()))


@pytest.mark.parametrize("samples", [1, 3])
def test_python_says_what_torchscript_says(samples, tmp_path, draw_head, awaken, seed):
    """The same lines, so that a debugger can be taken through them."""
    network = awaken(ScoreFusion(["coronal"], size="tiny", fusion=False)).eval()
    options = {"steps": 2, "samples": samples, "seed": seed, "precision": "float32", "degradation": BlockAverage((2, 2, 2))}
    inferer, volume = FusedScoreInferer(Diffusion(), sample_ancestral, **options), draw_head(20, 24, 20)
    result = scripted(inferer, network, tmp_path / "model.ts")(volume)
    with torch.no_grad():
        torch.testing.assert_close(ExportedSampler(inferer, network)(volume), result, rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match="multiple of the block; pad it first"):
            ExportedSampler(inferer, network)(volume[..., 1:])


def test_the_mean_with_mirror_images_is_exported_too(tmp_path, draw_head, awaken):
    network = awaken(ScoreFusion(["coronal"], size="tiny", fusion=False)).eval()
    inferer = FusedScoreInferer(Diffusion(), sample_ddim, steps=1, orientations=4, precision="float32")
    volume = draw_head(20, 24, 20)
    result = scripted(inferer, network, tmp_path / "model.ts")(volume)
    torch.testing.assert_close(result, inferer(volume, network), rtol=0, atol=1e-5 * float(volume.max()))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_every_sampler_is_exported_as_it_is_or_refused(sampler, tmp_path, draw_head, awaken):
    network = awaken(ScoreFusion(["coronal"], size="tiny", fusion=False)).eval()
    inferer = FusedScoreInferer(Diffusion(NoiseSchedule("cosine", start=0.05)), sampler, steps=4, precision="float32")
    volume = draw_head(20, 24, 20)
    try:
        result = scripted(inferer, network, tmp_path / "model.ts")(volume)
    except BadInput as error:
        assert "cannot be exported" in str(error)
    else:
        torch.testing.assert_close(result, inferer(volume, network), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "prediction", "block"),
    [
        (sample_ancestral, "epsilon", (4, 4, 4)),
        (sample_ddim, "x_0", None),
        (partial(sample_ddim, eta=1.0), "v", (1, 1, 4)),
        (sample_heun, "v", (4, 4, 4)),
    ],
    ids=["epsilon", "x_0", "v", "two calls a step"],
)
def test_every_process_can_be_exported(sampler, prediction, block, tmp_path, draw_head, awaken, seed):
    network = awaken(ScoreFusion(["coronal"], conditions=2, size="tiny", fusion=False)).eval()
    schedule = NoiseSchedule("linear" if prediction == "epsilon" else "cosine", start=0.05)
    process = Diffusion(schedule, prediction, residual=prediction == "v", sigma_data=0.3)
    degradation = BlockAverage(block, smooth=prediction == "epsilon") if block else None
    inferer = FusedScoreInferer(process, sampler, steps=3, degradation=degradation, seed=seed, precision="float32")
    volume = torch.cat([draw_head(20, 24, 20), -draw_head(20, 24, 20)], dim=1)
    result = scripted(inferer, network, tmp_path / "model.ts")(volume)
    torch.testing.assert_close(result, inferer(volume, network), rtol=0, atol=1e-4)


def test_several_samples_come_out_as_from_the_bundle(tmp_path, draw_head, awaken, seed):
    network = awaken(ScoreFusion(["axial"], size="tiny", fusion=False)).eval()
    inferer = FusedScoreInferer(Diffusion(), sample_ancestral, steps=2, samples=3, seed=seed, precision="float32")
    volume = draw_head(17, 18, 20)
    result = scripted(inferer, network, tmp_path / "model.ts")(volume)
    torch.testing.assert_close(result, inferer(volume, network), rtol=0, atol=1e-4)


def test_a_volume_that_the_block_does_not_divide_is_refused(tmp_path):
    inferer = FusedScoreInferer(Diffusion(), sample_ddim, steps=1, degradation=BlockAverage((4, 4, 4)))
    sampler = scripted(inferer, ScoreFusion(["axial"], size="tiny", fusion=False), tmp_path / "model.ts")
    with pytest.raises(torch.jit.Error, match="multiple of the block"):
        sampler(torch.rand(1, 1, 20, 20, 21))


def test_a_sampler_that_is_not_linear_is_refused():
    def squares(denoise, x_t, gammas, *, generator=None):
        return denoise(x_t, 0.5) ** 2

    with pytest.raises(BadInput, match="cannot be exported"):
        ExportedSampler(FusedScoreInferer(Diffusion(), squares, steps=1), ScoreFusion(["axial"], size="tiny", fusion=False))


@pytest.mark.parametrize(
    "unusual",
    [
        {"sampler": Alternating(sample_ddim, members=2)},
        {"sampler": sample_ddim, "degradation": ThickScans([(1, 1, 4), (1, 4, 1)])},
        {"sampler": sample_ddim, "orientations": 8, "steps": 1},
    ],
)
def test_what_cannot_be_exported_is_refused(unusual):
    with pytest.raises(BadInput, match="cannot be exported"):
        ExportedSampler(FusedScoreInferer(Diffusion(), **{"steps": 4, **unusual}), ScoreFusion(size="tiny", fusion=False))
