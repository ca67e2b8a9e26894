# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from scripts.data.random_contrast import smooth
from scripts.diffusion import Diffusion, NoiseSchedule, sample_ddim
from scripts.errors import BadInput
from scripts.inferers import AdaptingInferer
from scripts.measurement import AsScanned, BlockAverage
from scripts.measurement.as_scanned import meta_of
from scripts.measurement.intensity import intensity_range
from scripts.measurement.slice_profile import SliceProfile
from scripts.measurement.slices import Slices
from scripts.networks import ScoreFusion
from scripts.training import adaptation
from scripts.training.adaptation import Adaptation

DIFFUSION = Diffusion(NoiseSchedule("cosine"), sigma_data=0.05)
OPERATOR = SliceProfile([None, None, Slices.covering(12, 2.5, 2.0)])


@pytest.fixture
def network(seed):
    network = ScoreFusion(["coronal", "sagittal"], size="tiny").eval()
    network.members[1].denoiser.load_state_dict(network.members[0].denoiser.state_dict())
    return network


@pytest.fixture
def scan(rng):
    """Stripes of one width everywhere, which a network can learn in seconds."""
    wave = 0.5 + 0.5 * torch.sin(torch.arange(60) * 1.1)
    texture = wave[:, None, None] * wave[None, :, None] + 0.2 * smooth(torch.from_numpy(rng.random((60, 60, 30))).float(), 1.0)
    texture[:4], texture[-4:], texture[:, :4], texture[:, -4:] = 0, 0, 0, 0
    return OPERATOR(texture[None, None])


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def adaptation_to(scan, operator=OPERATOR):
    return Adaptation(scan, operator, DIFFUSION, intensity_range(operator.plain(scan)), half=False)


def test_planes_learn_from_the_scan_and_stay_alike(network, scan):
    before, fusion = weights(network), weights(network.fusion)
    assert adaptation_to(scan)(network, minutes=0.1)
    assert not torch.equal(weights(network), before)
    assert torch.equal(weights(network.fusion), fusion)
    assert torch.equal(*(weights(member.denoiser) for member in network.members))
    assert not any(parameter.requires_grad for parameter in network.members[0].denoiser.parameters())


def test_what_makes_held_out_slices_no_better_is_taken_back(network, scan, monkeypatch, caplog):
    monkeypatch.setattr(adaptation, "LEARNING_RATE", 100.0)
    before = weights(network)
    with caplog.at_level("INFO"):
        assert not adaptation_to(scan)(network, minutes=0.02)
    assert torch.equal(weights(network), before)
    assert "not better, so the weights stay as they were" in caplog.text


def test_slices_that_are_judged_are_not_learned_from(scan):
    one = adaptation_to(scan)
    together = torch.cat([one.training, one.judged], dim=2)
    assert together.shape[2] == 12 and one.judged.shape[2] == 1
    expected = OPERATOR.measure(scan)[0, 0]
    low, high = (float(end) for end in intensity_range(OPERATOR.plain(scan)))
    torch.testing.assert_close(one.judged[..., 0], (expected[..., 5] - low) / (high - low))


def test_planes_that_differ_are_refused(network, scan, awaken):
    awaken(network.members[1])
    with pytest.raises(BadInput, match="take the weights of task any"):
        adaptation_to(scan)(network, minutes=0.01)


@pytest.mark.parametrize(
    "axes", [[Slices.covering(15, 4), None, Slices.covering(12, 2.5)], [None, None, Slices.covering(3, 10)]]
)
def test_a_scan_that_teaches_nothing_is_refused(axes):
    operator = SliceProfile(axes)
    with pytest.raises(BadInput, match="to adapt to"):
        adaptation_to(torch.rand(1, 1, 60, 60, axes[2].voxels), operator)


def test_the_inferer_leaves_its_network_alone_and_says_why_it_did_not_adapt(network, scan, caplog):
    from monai.data.meta_tensor import MetaTensor

    before = weights(network)
    volume = MetaTensor(scan, meta=meta_of(OPERATOR.axes))
    options = {"steps": 1, "degradation": AsScanned(), "precision": "float32"}
    plain = AdaptingInferer(DIFFUSION, sample_ddim, **options)(volume, network)
    adapted = AdaptingInferer(DIFFUSION, sample_ddim, minutes=0.1, **options)(volume, network)
    assert torch.equal(weights(network), before)
    assert not torch.equal(plain, adapted)
    torch.testing.assert_close(OPERATOR.measure(adapted), OPERATOR.measure(scan), rtol=0, atol=1e-4)
    blocks = scan[..., :28]
    options["degradation"] = BlockAverage((4, 4, 4))
    inferer = AdaptingInferer(DIFFUSION, sample_ddim, minutes=0.1, **options)
    result = inferer(blocks, network, case="x")
    assert "case x: not adapted, because only a fusion of planes" in caplog.text
    assert [doubt for doubt in inferer.doubts if doubt.startswith("not adapted, because only")]
    assert np.isfinite(result).all()
