# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from monai.networks.nets import resnet50

from scripts.errors import BadInput
from scripts.evaluation import MedicalNet, medical_net
from scripts.evaluation.medical_net import backbone


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as MedicalNet's: names begin with `module.`, and its versions of 2019 lack the counters."""
    path = tmp_path_factory.mktemp("medical_net") / "resnet_50.pth"
    stored = {f"module.{name}": value for name, value in backbone().state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": stored}, path)
    return path


def test_its_last_stages_dilate_where_others_stride():
    with torch.device("meta"):
        network = backbone()
        x = network.conv1(torch.empty(1, 1, 256, 256, 256))
        assert x.shape == (1, 64, 128, 128, 128)
        x = torch.nn.functional.max_pool3d(x, 3, 2, padding=1)
        for stage, shape in (("layer1", (256, 64)), ("layer2", (512, 32)), ("layer3", (1024, 32)), ("layer4", (2048, 32))):
            x = getattr(network, stage)(x)
            assert x.shape == (1, shape[0], *[shape[1]] * 3)
        assert network(torch.empty(2, 1, 64, 48, 40)).shape == (2, 2048)
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for block in stage:
            assert (block.conv2.stride, block.conv2.dilation) == ((1, 1, 1), (dilation,) * 3)


def test_it_has_the_parameters_that_medicalnet_counts():
    with torch.device("meta"):
        network = backbone()
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(46.16, abs=0.005)


@pytest.mark.parametrize(("stage", "dilation", "channels"), [("layer3", 2, 512), ("layer4", 4, 1024)])
def test_a_dilated_stage_is_the_plain_one_on_every_so_many_th_voxel(stage, dilation, channels, seed):
    """The sampling of "a trous": what a dilated convolution gives at these voxels depends on them alone."""
    ours = backbone().double().eval()
    plain = resnet50(spatial_dims=3, n_input_channels=1, feed_forward=False, bias_downsample=False).double().eval()
    plain.load_state_dict(ours.state_dict())
    first = getattr(plain, stage)[0]
    first.conv2.stride = first.downsample[0].stride = (1, 1, 1)
    x = torch.randn(1, channels, 9, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        found = getattr(ours, stage)(x)[..., ::dilation, ::dilation, ::dilation]
        torch.testing.assert_close(found, getattr(plain, stage)(x[..., ::dilation, ::dilation, ::dilation]))


def test_features_are_the_output_averaged_over_space(weights, monkeypatch, rng):
    monkeypatch.setattr(medical_net, "SIDE", 16)
    features = MedicalNet(weights)
    volume = rng.random((16, 16, 16), dtype=np.float32)
    network = features.network
    with torch.no_grad():
        x = torch.relu(network.bn1(network.conv1(2 * torch.from_numpy(volume)[None, None] - 1)))
        x = torch.nn.functional.max_pool3d(x, 3, 2, padding=1)
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
    assert x.shape[2:] == (2, 2, 2)
    expected = x[0].flatten(1).double().mean(dim=1)
    found = features(volume)
    assert (found.shape, features.name) == ((2048,), "medicalnet_resnet50")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert features(rng.random((9, 20, 11), dtype=np.float32)).shape == (2048,)  # resized


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere\.pth: no such weights file; give MedicalNet's resnet_50\.pth"):
        MedicalNet(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [b"", b"not weights", {"state_dict": {"module.a": torch.ones(1)}}, {"a": 1}, [1], "short"])
def test_a_file_of_something_else_is_refused_in_one_line(content, weights, tmp_path):
    path = tmp_path / "other.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "short":
        path.write_bytes(weights.read_bytes()[:100_000])
    else:
        torch.save(content, path)
    with pytest.raises(BadInput, match=r"other\.pth: does not hold the weights of MedicalNet's 3D ResNet-50") as raised:
        MedicalNet(path)
    assert "\n" not in str(raised.value)
