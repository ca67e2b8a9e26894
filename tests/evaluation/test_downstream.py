# SPDX-License-Identifier: Apache-2.0
import io
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import MetaTensor
from scipy import ndimage

from scripts.errors import BadInput
from scripts.evaluation.downstream import AddDegradedd, SegmentationInferer, VersionsOfCased, named_folders
from scripts.evaluation.downstream_results import (
    DownstreamResults,
    empty_regions,
    means,
    recoveries,
    recovery,
    segmentation_scores,
)
from scripts.measurement import BlockAverage
from scripts.report.recovery_figure import recovery_figure

SPACING = (1.0, 2.0, 0.5)


def draw_masks(rng, *leading):
    """Random blobs, none empty."""
    noise = ndimage.gaussian_filter(rng.normal(size=(*leading, 20, 18, 22)), sigma=(0,) * len(leading) + (2, 2, 2))
    return noise > np.quantile(noise, 0.8, axis=(-3, -2, -1), keepdims=True)


def surface_distances(mask, other):
    """mm from each surface voxel of a mask to the nearest surface voxel of the other."""
    surface, target = (m & ~ndimage.binary_erosion(m) for m in (mask, other))
    return ndimage.distance_transform_edt(~target, sampling=SPACING)[surface]


def independent_hd95(a, b):
    return max(np.percentile(surface_distances(*pair), 95) for pair in ((a, b), (b, a)))


def as_tensor(masks):
    return torch.from_numpy(masks.astype(np.float32))


def test_dice_and_hd95_equal_an_independent_computation(rng):
    pred, truth = draw_masks(rng, 2, 3), draw_masks(rng, 3)
    scores = segmentation_scores(as_tensor(pred), as_tensor(truth), SPACING)
    for version in range(2):
        for region in range(3):
            p, t = pred[version, region], truth[region]
            assert scores[version][region]["dice"] == pytest.approx(2 * (p & t).sum() / (p.sum() + t.sum()), abs=1e-6)
            assert scores[version][region]["hd95"] == pytest.approx(independent_hd95(p, t), rel=1e-5)


def test_an_empty_truth_has_no_scores_and_an_empty_segmentation_has_dice_0(rng):
    pred, truth = draw_masks(rng, 2, 2), draw_masks(rng, 2)
    truth[0], pred[1, 1] = False, False
    scores = segmentation_scores(as_tensor(pred), as_tensor(truth), SPACING)
    nothing = {"dice": None, "hd95": None}
    assert [of_version[0] for of_version in scores] == [nothing, nothing]
    assert scores[1][1] == {"dice": 0.0, "hd95": None}
    case = {name: dict(zip(("ET", "WT"), s, strict=True)) for name, s in zip(("real", "fusion"), scores, strict=True)}
    assert empty_regions("anna", case) == [
        "case anna: the truth has no ET",
        "case anna: no WT was found with the fusion modality",
    ]


def test_the_recovery_of_the_published_table_is_reproduced():
    """Table 2 of Zhu et al. 2025, super-resolution; Dice is printed to 0.01, hence the tolerance."""
    dice = {"real": (82.71, 89.17, 81.20), "degraded": (82.30, 86.82, 80.30), "tpdm": (82.49, 87.77, 80.49)}
    mean = {
        name: {region: {"dice": d} for region, d in zip(("TC", "WT", "ET"), row, strict=True)} for name, row in dice.items()
    }
    published = {"TC": 0.4627, "WT": 0.4046, "ET": 0.2062}
    assert recoveries(mean, "tpdm") == pytest.approx(published, abs=0.025)


def test_recovery_is_0_for_the_degraded_1_for_the_real_and_not_defined_where_nothing_was_lost():
    assert (recovery(0.5, 0.5, 0.9), recovery(0.9, 0.5, 0.9), recovery(0.8, 0.9, 0.9)) == (0.0, 1.0, None)
    assert recovery(None, 0.5, 0.9) is None


def test_means_are_over_the_cases_that_have_a_value():
    cases = {
        "a": {"real": {"ET": {"dice": 0.5, "hd95": 2.0}}},
        "b": {"real": {"ET": {"dice": 0.0, "hd95": None}}},
        "c": {"real": {"ET": {"dice": None, "hd95": None}}},
    }
    assert means(cases, ["real"], ["ET"]) == {"real": {"ET": {"dice": 0.25, "dice_n": 2, "hd95": 2.0, "hd95_n": 1}}}


@pytest.mark.parametrize("sides", [(16, 20, 24), (15, 18, 22)])
def test_the_degraded_modality_has_the_block_averages_of_the_real_one(sides, rng):
    image = MetaTensor(rng.uniform(1, 9, (2, *sides)).astype(np.float32))
    candidates = AddDegradedd(1, BlockAverage((4, 4, 4)))({"image": image})["candidates"]
    assert candidates.shape == (1, *sides)
    h, w, d = (side // 4 for side in sides)
    blocks = [
        np.asarray(v)[: 4 * h, : 4 * w, : 4 * d].reshape(h, 4, w, 4, d, 4).mean(axis=(1, 3, 5))
        for v in (image[1], candidates[0])
    ]
    np.testing.assert_allclose(blocks[1], blocks[0], rtol=1e-4)
    assert candidates.std() < 0.5 * image[1].std()


def test_candidates_are_0_where_the_other_channels_are_and_a_missing_modality_is_0_everywhere(rng):
    image = MetaTensor(rng.uniform(1, 9, (3, 8, 8, 8)).astype(np.float32))
    image[[0, 2], :4] = 0
    image[0, 4] = 0
    given = MetaTensor(rng.uniform(1, 9, (2, 8, 8, 8)).astype(np.float32))
    candidates = AddDegradedd(1, None)({"image": image, "predictions": given})["candidates"].numpy()
    assert not candidates[0].any()
    assert not candidates[1:, :4].any()
    np.testing.assert_array_equal(candidates[1:, 4:], given[:, 4:])


def test_versions_differ_in_the_replaced_channel_alone_and_are_normalised_over_the_head(rng):
    image = MetaTensor(rng.uniform(1, 9, (3, 8, 8, 8)).astype(np.float32))
    image[:, :3] = 0
    versions = VersionsOfCased(2)({"image": image, "candidates": image[1:2]})["image"].numpy()
    head = image[0].numpy() != 0
    expected = np.stack([np.where(head, (v - v[head].mean()) / v[head].std(), 0) for v in image.numpy()])
    np.testing.assert_allclose(versions[0], expected, atol=1e-5)
    np.testing.assert_allclose(versions[1], expected[[0, 1, 1]], atol=1e-5)


def test_windows_over_versions_equal_those_over_each_version(rng):
    network = torch.nn.Conv3d(2, 3, 3, padding=1)
    inputs = torch.from_numpy(rng.normal(size=(1, 4, 2, 20, 16, 18)).astype(np.float32))
    inferer = SegmentationInferer(roi_size=(16, 16, 16), overlap=0.5, mode="gaussian", precision="float32")
    with torch.no_grad():
        together = inferer(inputs, network, case="anna")
        apart = torch.stack([inferer(version, network) for version in inputs.unbind(1)], dim=1)
    assert together.shape == (1, 4, 3, 20, 16, 18)
    torch.testing.assert_close(together, apart)


def test_folders_have_the_names_given_or_their_own(tmp_path):
    (tmp_path / "average").mkdir()
    (tmp_path / "out").mkdir()
    given = [str(tmp_path / "average"), f"fusion={tmp_path / 'out'}"]
    assert named_folders(given) == {"average": tmp_path / "average", "fusion": tmp_path / "out"}
    assert named_folders(given[0]) == {"average": tmp_path / "average"}
    assert named_folders([]) == {}


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path):
    folder = tmp_path / "lr=0.1" / "out"
    folder.mkdir(parents=True)
    assert named_folders(str(folder)) == {"out": folder}
    assert named_folders(f"fusion={folder}") == {"fusion": folder}
    for missing in (f"{folder}/gone", "fusion="):
        with pytest.raises(BadInput, match=f"^{re.escape(missing)}: no such folder"):
            named_folders(missing)


def test_the_log_says_of_how_many_cases_a_mean_is_where_it_is_not_of_all(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    record = DownstreamResults(tmp_path, regions=["WT"], methods={}, system={})
    scores = [{"dice": 0.9, "hd95": 2.0}, {"dice": 0.0, "hd95": None}, {"dice": None, "hd95": None}]
    record.cases = {str(index): {version: {"WT": of} for version in ("real", "degraded")} for index, of in enumerate(scores)}
    record.write(SimpleNamespace(failures={}))
    assert caplog.messages[-1] == "degraded: WT Dice 0.450 (2 of 3) HD95 2.000 mm (1 of 3)"
    record.cases.popitem(), record.cases.popitem()
    record.write(SimpleNamespace(failures={}))
    assert caplog.messages[-1] == "degraded: WT Dice 0.900 HD95 2.000 mm"


def test_a_missing_folder_and_a_name_given_twice_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"^nowhere: no such folder"):
        named_folders("fusion=nowhere")
    for name in ("a", "real"):
        with pytest.raises(BadInput, match=re.escape(f"the name {name} is taken")):
            named_folders([f"a={tmp_path}", f"{name}={tmp_path}"])


@pytest.mark.parametrize("methods", [{}, {"average": 0.8}, {"average": 0.8, "fusion": 0.85, "worse": None}])
def test_the_figure_is_a_picture_for_any_number_of_methods(methods):
    dice = {"real": 0.9, "degraded": 0.7, **methods}
    results = {
        "system": {"replaced": "flair", "degraded": "missing"},
        "n": 3,
        "mean": {name: {region: {"dice": value, "dice_n": 3} for region in ("TC", "WT")} for name, value in dice.items()},
        "recovery": {name: {"TC": None if value is None else value, "WT": None} for name, value in methods.items()},
    }
    picture = imread(io.BytesIO(recovery_figure(results)))
    assert min(picture.shape[:2]) > 300
    assert np.ptp(picture[..., :3]) > 0.5
