# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from scripts.errors import BadInput
from scripts.networks import ScoreFusion, load_weights
from scripts.networks.space_time import SpaceTimeDenoiser
from scripts.networks.weights import write

MEMBERS = ["x-y", "x-t", "y-t", "space-time"]
SHAPE = (18, 21, 7)  # odd sides, and fewer frames than a plane could halve


def said(network, **changes):
    torch.manual_seed(0)
    given = {"x": torch.randn(2, 5, *SHAPE), "x_t": torch.randn(2, 1, *SHAPE), "timesteps": torch.tensor([0.1, 0.6])}
    return network(**(given | changes))


def test_a_new_one_says_nothing():
    assert not said(SpaceTimeDenoiser(size="tiny")).any()


def test_what_it_says_follows_the_noise_level_sample_by_sample(awaken):
    network = awaken(SpaceTimeDenoiser(size="tiny")).eval()
    first, second = said(network), said(network, timesteps=torch.tensor([0.1, 0.9]))
    assert first.shape == (2, 1, *SHAPE)
    assert torch.equal(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-3


@pytest.mark.parametrize("slabs", [2, 8, 32])
@torch.no_grad()
def test_a_loop_seen_in_slabs_is_the_loop_seen_whole(slabs, awaken):
    network = awaken(SpaceTimeDenoiser(size="compact")).eval()
    whole = said(network)
    network.unet.slabs = slabs
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(said(network), whole, rtol=1e-4, atol=1e-5)  # sums in another order


def test_a_frame_is_seen_from_its_neighbours_in_space_and_in_time(awaken):
    network = awaken(SpaceTimeDenoiser(size="tiny")).eval()
    x = torch.randn(1, 5, *SHAPE, requires_grad=True)
    network(x)[0, 0, 9, 9, 3].backward()
    seen = x.grad[0].abs().sum(dim=0)
    assert seen[9, 9, 2] > 0
    assert seen[9, 9, 4] > 0
    assert seen[11, 9, 3] > 0


def test_frames_run_backwards_where_its_weights_do(awaken):
    """Time is the axis of the kernels of 1x1x3: turned round, they say of the loop turned round the same, turned round."""
    network = awaken(SpaceTimeDenoiser(size="tiny")).eval()
    x = torch.randn(1, 5, *SHAPE)
    before = network(x)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("time.weight"):
                parameter.copy_(parameter.flip(-1))
    torch.testing.assert_close(network(x.flip(-1)), before.flip(-1), rtol=0, atol=1e-5)  # sums in another order


def test_torchscript_says_the_same(awaken):
    network = awaken(ScoreFusion(MEMBERS, size="tiny")).eval()
    x = torch.randn(1, 5, 18, 20, 17)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x), rtol=0, atol=1e-6)


def test_a_new_fusion_with_it_is_the_average_of_all(awaken):
    network = ScoreFusion(MEMBERS, size="tiny").eval()
    awaken(network.members)
    x = torch.randn(1, 5, 20, 20, 17)
    alone = [network.alone(index)(x, torch.zeros(1, 1, 20, 20, 17), torch.zeros(1)) for index in range(len(MEMBERS))]
    torch.testing.assert_close(network(x), torch.stack(alone).mean(dim=0), rtol=0, atol=1e-5)


def test_its_weights_are_no_plane_s_and_a_file_of_all_serves_it_alone(awaken, tmp_path):
    whole = awaken(ScoreFusion(MEMBERS, size="tiny"))
    write(whole.state_dict(), tmp_path / "whole.pt")
    alone = load_weights(ScoreFusion(["space-time"], size="tiny", fusion=False), tmp_path / "whole.pt")
    wanted = whole.members[3].denoiser.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in alone.members[0].denoiser.state_dict().items())
    with pytest.raises(BadInput, match="weights of another network"):
        load_weights(ScoreFusion(["x-y", "x-t", "space-time", "y-t"], size="tiny"), tmp_path / "whole.pt")
