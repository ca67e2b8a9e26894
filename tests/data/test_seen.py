# SPDX-License-Identifier: Apache-2.0
"""What weights have seen: what does not matter to a head changes nothing, and another kind of volume lies far off."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.distance import mahalanobis

import scripts.data.seen as seen_module
from scripts.data import DoubtUnseend
from scripts.data.seen import PROPERTIES, Seen, channel_properties, properties, read_seen, seen_file, write_seen
from scripts.errors import BadInput
from scripts.measurement import BlockAverage

SPACING = (4.0, 4.0, 4.0)
NAMES = list(PROPERTIES)


def ellipsoid(shape, radii):
    axes = [(np.arange(side) - (side - 1) / 2) / radius for side, radius in zip(shape, radii, strict=True)]
    return sum(square**2 for square in np.meshgrid(*axes, indexing="ij", sparse=True))


def draw_brain(rng):
    """Smooth tissue in an ellipsoid of 1.2 to 1.6 litres, nothing around it; voxels of 4 mm."""
    radii = rng.uniform(0.97, 1.03, 3) * (17, 21, 15)
    texture = ndimage.gaussian_filter(rng.normal(size=(40, 48, 36)), rng.uniform(0.9, 1.1))
    tissue = 500 + 100 * texture / texture.std()
    return np.where(ellipsoid(texture.shape, radii) < 1, tissue, 0).astype(np.float32)


def draw_head(rng):
    """The same with a bright shell around it, and noise in the air."""
    brain = draw_brain(rng)
    distance = ellipsoid(brain.shape, (19.5, 23.5, 17.5))
    shell = (distance < 1) & (brain == 0)
    return np.where(shell, 800, brain) + np.abs(rng.normal(0, 15, brain.shape)).astype(np.float32)


@pytest.fixture
def seen(rng):
    return Seen.of(np.array([properties(draw_brain(rng), SPACING) for _ in range(40)]))


@pytest.fixture
def weights(seen_by, tmp_path):
    return seen_by(tmp_path / "own.pt")


@pytest.fixture
def seen_by(rng):
    """A function of a path: weights there, beside them what they have seen, brains."""

    def seen_by(path):
        path.write_bytes(b"weights")
        write_seen(path, "translation", {"t1ce": np.array([properties(draw_brain(rng), SPACING) for _ in range(40)])})
        return path

    return seen_by


def case_of(voxels, spacing=4.0):
    volume = MetaTensor(torch.from_numpy(voxels)[None], affine=torch.diag(torch.tensor([spacing] * 3 + [1.0])))
    volume.meta["doubts"] = json.dumps(["an earlier one"])
    return {"case": "a", "image": volume}


def doubts(data):
    return json.loads(data["image"].meta["doubts"])[1:]


def test_gain_offset_margins_and_sides_change_nothing(rng):
    brain = draw_brain(rng)
    wanted = properties(brain, SPACING)
    for same in (3.5 * brain + 70, np.pad(brain, ((3, 9), (0, 7), (5, 0))), brain[::-1, :, ::-1], brain.transpose(2, 0, 1)):
        np.testing.assert_allclose(properties(same, SPACING), wanted, atol=2e-3)  # of q0.001 and float32


def test_properties_are_what_their_names_say_of_volumes_known_in_closed_form(rng):
    radii = rng.uniform(12, 17, 3)
    inside = ellipsoid((40, 40, 40), radii) < 1
    found = dict(zip(NAMES, properties(np.where(inside, rng.uniform(0.5, 1, inside.shape), 0), SPACING), strict=True))
    litres = 4 / 3 * np.pi * np.prod(radii * 4) / 1e6
    assert 10 ** found["litres"] == pytest.approx(litres, rel=0.02)
    assert found["empty"] == pytest.approx(1 - np.pi / 6, abs=0.07)  # of its box, which has whole voxels
    assert [found[name] for name in ("q10", "q25", "q50", "q75", "q90")] == pytest.approx(
        [0.55, 0.625, 0.75, 0.875, 0.95], abs=0.02
    )
    assert found["skewness"] == pytest.approx(0, abs=0.1)
    assert found["rough"] == pytest.approx(0, abs=0.02)  # of independent values half the squared difference is the variance


def test_grain_is_the_variance_within_cells(rng):
    noise = np.pad(rng.uniform(1, 2, (64, 64, 64)), 4)  # in cells of 4x4x4 voxels of 1 mm, whose means have a 64th of it
    found = dict(zip(NAMES, properties(noise, (1, 1, 1)), strict=True))
    assert 10 ** found["grain"] == pytest.approx(63, rel=0.1)


def test_the_distance_is_mahalanobis(seen, rng):
    found = properties(draw_head(rng), SPACING)
    theirs = mahalanobis(found / seen.spread, seen.median / seen.spread, seen.precision) / np.sqrt(len(NAMES))
    assert seen.distance(found) == pytest.approx(theirs)


def test_other_brains_are_inside_and_other_things_far_outside(seen, rng):
    inside = [seen.distance(properties(draw_brain(rng), SPACING)) <= seen.doubt for _ in range(10)]
    assert sum(inside) >= 7  # a doubt is meant to be as rare as 1 in 100 of them, but 40 training volumes tell that roughly
    head, noise = (properties(voxels, SPACING) for voxels in (draw_head(rng), rng.normal(9, 1, (40, 48, 36))))
    assert seen.distance(head) > seen.refuse and seen.distance(noise) > seen.refuse
    assert seen.unusual(head).count("; the weights saw ") == 1


def test_a_property_that_never_varied_tells_nothing(rng):
    samples = rng.normal(size=(30, len(NAMES)))
    samples[:, 3] = 0.25
    seen, other = Seen.of(samples), samples[0].copy()
    other[3] = 100.0
    assert seen.distance(other) == pytest.approx(seen.distance(samples[0]), rel=1e-3)


def test_too_few_volumes_are_refused(rng):
    with pytest.raises(BadInput, match="9 training volumes: at least ten"):
        Seen.of(rng.normal(size=(9, len(NAMES))))


def test_without_a_file_nothing_is_said_and_nothing_computed(tmp_path, rng):
    (tmp_path / "own.pt").write_bytes(b"weights")
    assert read_seen(tmp_path / "own.pt") == {}
    assert doubts(DoubtUnseend(tmp_path / "own.pt")(case_of(draw_head(rng)))) == []


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"conditions": {"t1": {"doubt": 1}}}', "shorter", "NaN"])
def test_a_damaged_file_is_one_clear_line(content, weights):
    file = seen_file(weights)
    whole = json.loads(file.read_text())
    if content == "shorter":
        whole["conditions"]["t1ce"]["median"].pop()
    elif content == "NaN":
        whole["conditions"]["t1ce"]["doubt"] = "much"
    elif content.startswith("{") and content != "{":
        whole = {"weights": whole["weights"], **json.loads(content)}
    file.write_text(json.dumps(whole) if content not in ("{", "[]") else content)
    with pytest.raises(BadInput, match=r"own\.seen\.json: .*; make it anew \(score-fusion seen\) or delete it") as error:
        DoubtUnseend(weights)
    assert "\n" not in str(error.value)


def test_what_other_weights_saw_does_not_count(weights):
    weights.write_bytes(b"trained anew")
    with pytest.raises(BadInput, match=r"of other weights than own\.pt"):
        DoubtUnseend(weights)


def test_a_translation_of_an_unstripped_head_is_refused_unless_forced(weights, rng):
    head = draw_head(rng)
    with pytest.raises(
        BadInput, match=r"^t1ce is unlike all that the weights saw: .*; the weights saw .* or --force, "
    ) as error:
        DoubtUnseend(weights)(case_of(head))
    (line,) = doubts(DoubtUnseend(weights, force=True)(case_of(head)))
    assert line.startswith("t1ce is unlike what the weights saw: ")
    assert line.partition(": ")[2] in str(error.value)


def test_the_line_names_the_task_whose_weights_saw_such_scans(weights, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(seen_module, "bundle_root", lambda: str(tmp_path))
    (tmp_path / "models").mkdir()
    (heads := tmp_path / "models" / "heads.pt").write_bytes(b"other weights")
    write_seen(heads, "of_heads", {"t1ce": np.array([properties(draw_head(rng), SPACING) for _ in range(40)])})
    with pytest.raises(BadInput, match="; those of --task of_heads saw such scans, or --force"):
        DoubtUnseend(weights)(case_of(draw_head(rng)))
    with pytest.raises(BadInput, match="; give scans like theirs"):
        DoubtUnseend(weights)(case_of(rng.random((40, 48, 36)).astype(np.float32)))


def test_super_resolution_is_doubted_and_never_refused(weights, rng):
    """A scan of 4 mm, repeated onto 1 mm as the loader does: its own grid counts."""
    coarse = draw_brain(rng)
    fine = np.kron(coarse, np.ones((4, 4, 4), dtype=np.float32))
    average = BlockAverage((4, 4, 4))
    (found,) = channel_properties(case_of(fine, 1.0)["image"], average)
    np.testing.assert_allclose(found, properties(coarse, SPACING))
    noise = np.kron(rng.normal(9, 1, coarse.shape).astype(np.float32), np.ones((4, 4, 4), dtype=np.float32))
    data = DoubtUnseend(weights, average)(case_of(noise, 1.0))
    assert len(doubts(data)) == 1
    assert json.loads(data["image"].meta["unseen"]) == doubts(data)
