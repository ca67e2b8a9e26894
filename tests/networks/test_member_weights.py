# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from scripts.errors import BadInput
from scripts.networks import ModalityFusion, ScoreFusion, VolumeDenoiser
from scripts.networks.blocks import ResidualBlock
from scripts.networks.weights import export_weights, load_members, load_weights, write
from scripts.training import fusion_to_train, plane_to_train


def save(path, network):
    write({"objects": {"ema": network.state_dict()}}, path)
    return network


def plane(name, awaken):
    return awaken(ScoreFusion([name], size="tiny", fusion=False))


def same(member, alone):
    wanted = alone.members[0].denoiser.state_dict()
    return all(torch.equal(value, wanted[key]) for key, value in member.denoiser.state_dict().items())


def test_planes_trained_alone_become_one_file_that_averages_them(awaken, tmp_path):
    names = ["axial", "sagittal"]  # not all three
    alone = {name: save(tmp_path / name / "latest.pt", plane(name, awaken)) for name in names}
    export_weights(str(tmp_path / "{plane}" / "latest.pt"), str(tmp_path / "tpdm.pt"), half=False)
    network = load_weights(ScoreFusion(names, size="tiny", fusion=False), tmp_path / "tpdm.pt")
    assert all(same(member, alone[member.plane]) for member in network.members)
    with pytest.raises(BadInput, match="coronal"):
        export_weights(str(tmp_path / "no_{plane}.pt"), str(tmp_path / "none.pt"))


def test_a_plane_starts_from_a_file_of_planes_or_anew(awaken, tmp_path):
    fused, new = awaken(ScoreFusion(["coronal", "axial"], size="tiny")), plane("axial", awaken)
    torch.save(fused.state_dict(), tmp_path / "model.pt")
    before = {key: value.clone() for key, value in new.state_dict().items()}
    plane_to_train(new)
    assert all(torch.equal(value, before[key]) for key, value in new.state_dict().items())
    plane_to_train(new, str(tmp_path / "model.pt"))
    assert same(fused.members[1], new)
    with pytest.raises(BadInput, match="another network"):
        plane_to_train(plane("sagittal", awaken), str(tmp_path / "model.pt"))


def test_members_that_see_other_conditions_take_their_own_weights(awaken, tmp_path):
    alone = {seen: save(tmp_path / f"{seen}_coronal.pt", plane("coronal", awaken)) for seen in ("0", "1")}
    network = load_members(ModalityFusion(["coronal"], [[0], [1]], "tiny"), str(tmp_path / "{seen}_{plane}.pt"))
    for index, member in enumerate(network.members):
        assert same(member, alone[str(index)])
    torch.save(network.state_dict(), tmp_path / "fused.pt")
    average = load_weights(ModalityFusion(["coronal"], [[0], [1]], "tiny", fusion=False), tmp_path / "fused.pt")
    for index, member in enumerate(average.members):
        assert same(member, alone[str(index)])


def test_a_volume_network_trains_without_planes():
    network = fusion_to_train(VolumeDenoiser(size="tiny"), "no/such/{plane}.pt", checkpointing=True)
    assert all(module.checkpointing for module in network.modules() if isinstance(module, ResidualBlock))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_one_plane_can_serve_all(tmp_path, awaken):
    plane = awaken(ScoreFusion(["coronal"], size="tiny", fusion=False))
    torch.save(plane.state_dict(), tmp_path / "plane.pt")
    network = load_members(ScoreFusion(["coronal", "sagittal"], size="tiny"), str(tmp_path / "plane.pt"), shared=True)
    own = plane.members[0].denoiser.state_dict()
    for member in network.members:
        assert all(torch.equal(value, own[key]) for key, value in member.denoiser.state_dict().items())
    assert [int(member.plane_axis) for member in network.members] == [1, 0]
