# SPDX-License-Identifier: Apache-2.0
import copy
import resource
import time

import pytest
import torch
from ignite.engine import Engine
from monai.optimizers import WarmupCosineSchedule
from torch import nn

from scripts.diffusion import Diffusion
from scripts.errors import BadInput
from scripts.files import sha256, write_json
from scripts.networks import ScoreFusion, VolumeDenoiser, weights
from scripts.networks.weights import export_weights, load_members, load_weights, write
from scripts.training import LatestCheckpoint, NoiseLoss, RecallingFusion, check_start, fusion_to_train


@pytest.fixture
def engine():
    engine = Engine(lambda engine, batch: None)
    engine.state.epoch, engine.state.iteration = 3, 60
    return engine


def plane(name="coronal", size="tiny"):
    """A plane as `train_2d.yaml` trains it."""
    return ScoreFusion([name], size=size, fusion=False)


def save(engine, path, network):
    LatestCheckpoint(str(path), {"network": network, "ema": network}).save(engine)
    return str(path)


def one_line(raised):
    return "\n" not in str(raised.value)


def test_step_and_random_state_come_back(engine, seed, tmp_path):
    path = save(engine, tmp_path / "new" / "latest.pt", plane())
    expected = torch.rand(3)
    other, network = Engine(lambda engine, batch: None), plane()
    LatestCheckpoint(path, {"network": network}).load(other)
    assert (other.state.epoch, other.state.iteration) == (3, 60)
    assert torch.equal(torch.rand(3), expected)


def test_the_seconds_of_a_training_that_goes_on_add_up(engine, tmp_path):
    path, checkpoint = tmp_path / "latest.pt", LatestCheckpoint(str(tmp_path / "latest.pt"), {"network": plane()})
    for _ in range(2):
        checkpoint.load(engine)
        time.sleep(0.2)
        checkpoint.save(engine)
    assert 0.4 <= torch.load(path, weights_only=True)["seconds"] < 10.0


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: torch.save(plane().state_dict(), path),
        lambda path: torch.save([torch.zeros(3)], path),
        lambda path: torch.save(plane(), path),
    ],
    ids=["empty", "cut off", "weights alone", "a list", "a pickled network"],
)
@pytest.mark.parametrize("use", ["resume", "export"])
def test_a_broken_or_foreign_checkpoint_is_named_in_one_line(write, use, engine, tmp_path):
    network, path = plane(), tmp_path / "latest.pt"
    save(engine, path, network)
    write(path)
    with pytest.raises(BadInput, match=r"latest\.pt") as raised:
        if use == "resume":
            LatestCheckpoint(str(path), {"network": network}).load(engine)
        else:
            export_weights(str(path), str(tmp_path / "model.pt"))
    assert one_line(raised)


def test_a_checkpoint_of_another_network_is_named_in_one_line(engine, tmp_path):
    path = save(engine, tmp_path / "latest.pt", plane(size="compact"))
    with pytest.raises(BadInput, match="another network or setting") as raised:
        LatestCheckpoint(path, {"network": plane()}).load(engine)
    assert one_line(raised)


def test_an_interrupted_save_leaves_the_old_file(engine, tmp_path, monkeypatch):
    path = save(engine, tmp_path / "latest.pt", plane())
    before = (tmp_path / "latest.pt").read_bytes()

    def interrupted(target, content):
        target.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "write_tensors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(engine, path, plane())
    assert (tmp_path / "latest.pt").read_bytes() == before


def test_what_a_kill_left_of_a_checkpoint_is_gone_when_training_goes_on(engine, tmp_path):
    path = save(engine, tmp_path / "latest.pt", plane())
    for name in ("latest.pt", "other.pt"):
        (tmp_path / f".0123456789ab.new.{name}").write_bytes(b"half")
    LatestCheckpoint(path, {"network": plane()}).load(engine)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".0123456789ab.new.other.pt", "latest.pt"]


@pytest.mark.parametrize("half", [True, False])
def test_exported_weights_are_a_plain_state_dict_of_the_averaged_network(half, engine, tmp_path, awaken):
    averaged, network = awaken(plane()), plane()
    LatestCheckpoint(str(tmp_path / "latest.pt"), {"network": plane(), "ema": averaged}).save(engine)
    export_weights(str(tmp_path / "latest.pt"), str(tmp_path / "model.pt"), half=half)
    dtype = torch.float16 if half else torch.float32
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {value.dtype for value in saved.values() if value.is_floating_point()} == {dtype}
    network.load_state_dict(saved, strict=True)
    for (name, wanted), loaded in zip(averaged.state_dict().items(), network.state_dict().values(), strict=True):
        assert loaded.dtype == wanted.dtype
        assert torch.equal(loaded.float(), wanted.to(dtype).float()), name


def test_weights_load_from_an_export_and_from_a_checkpoint_alike(engine, tmp_path, awaken):
    source = awaken(plane())
    checkpoint = save(engine, tmp_path / "latest.pt", source)
    export_weights(checkpoint, str(tmp_path / "model.pt"), half=False)
    for path in (checkpoint, str(tmp_path / "model.pt")):
        loaded = load_weights(plane(), path).state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize("wanted", [plane(size="compact"), ScoreFusion(["coronal"], size="tiny"), nn.Linear(2, 2)])
def test_weights_of_another_network_are_named_in_one_line(wanted, tmp_path):
    torch.save(plane().state_dict(), tmp_path / "model.pt")
    with pytest.raises(BadInput, match=r"model\.pt: weights of another network.*overlays") as raised:
        load_weights(wanted, tmp_path / "model.pt")
    assert one_line(raised)


def test_missing_weights_are_named_in_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"model\.pt: no such weights file") as raised:
        load_weights(plane(), tmp_path / "model.pt")
    assert one_line(raised)


def test_every_member_gets_the_weights_of_its_plane(engine, tmp_path, awaken):
    alone = {name: awaken(plane(name)) for name in ("axial", "coronal", "sagittal")}
    for name, network in alone.items():
        save(engine, tmp_path / name / "latest.pt", network)
    order = ["coronal", "sagittal", "axial"]
    fusion = load_members(ScoreFusion(order, size="tiny"), str(tmp_path / "{plane}" / "latest.pt"))
    for name, member in zip(order, fusion.members, strict=True):
        wanted = alone[name].members[0].denoiser.state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in member.denoiser.state_dict().items())


def test_a_second_phase_starts_where_the_first_ended(engine, rng, tmp_path, awaken):
    save(engine, tmp_path / "coronal.pt", awaken(plane()))
    first = awaken(load_members(ScoreFusion(["coronal"], size="tiny", features=False), str(tmp_path / "{plane}.pt")))
    earlier = save(engine, tmp_path / "first.pt", first)
    second = ScoreFusion(["coronal"], size="tiny", features=True)
    fusion_to_train(second, str(tmp_path / "{plane}.pt"), earlier, checkpointing=True)
    x = torch.randn(1, 5, 17, 18, 19)
    with torch.no_grad():
        torch.testing.assert_close(second.eval()(x), first.eval()(x), rtol=1e-4, atol=1e-5)  # float32 in another order


def test_a_fusion_goes_on_with_the_planes_it_is_given(engine, tmp_path, awaken):
    better = awaken(plane())
    save(engine, tmp_path / "coronal.pt", better)
    before = awaken(ScoreFusion(["coronal"], size="tiny"))
    start = save(engine, tmp_path / "fusion.pt", before)
    network = fusion_to_train(ScoreFusion(["coronal"], size="tiny"), str(tmp_path / "{plane}.pt"), start)
    now, wanted = network.state_dict(), before.state_dict() | better.state_dict()
    assert all(torch.equal(now[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("shared", [False, True])
def test_planes_learn_with_their_fusion_where_that_is_wanted(shared, engine, tmp_path, awaken):
    for name in ("coronal", "sagittal"):
        save(engine, tmp_path / f"{name}.pt", awaken(plane(name)))
    network = ScoreFusion(["coronal", "sagittal"], size="tiny", features=True)
    fusion_to_train(network, str(tmp_path / "{plane}.pt"), shared=shared, train_planes=0.25)
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    x, x_t = torch.randn(2, 5, 20, 20, 20), torch.zeros(2, 1, 20, 20, 20)
    said = RecallingFusion(network.train(), planes=0.25)(x, x_t, torch.zeros(2))
    assert said.shape == (2, 3, 20, 20, 20)
    NoiseLoss(planes=0.25)(said, torch.ones_like(x_t)).backward()
    optimizer.step()
    after = network.state_dict()
    names = [key.removeprefix("members.0.") for key in after if key.startswith("members.0.denoiser.")]
    assert any(not torch.equal(before[f"members.1.{name}"], after[f"members.1.{name}"]) for name in names)
    same = [torch.equal(after[f"members.0.{name}"], after[f"members.1.{name}"]) for name in names]
    assert all(same) == shared


def test_a_network_without_planes_has_none_that_learn():
    with pytest.raises(BadInput, match="no planes") as raised:
        fusion_to_train(VolumeDenoiser(size="tiny"), "{plane}.pt", train_planes=0.25)
    assert one_line(raised)


def test_a_first_phase_of_another_size_is_named_in_one_line(engine, tmp_path):
    save(engine, tmp_path / "coronal.pt", plane())
    earlier = save(engine, tmp_path / "first.pt", ScoreFusion(["coronal"], size="compact"))
    with pytest.raises(BadInput, match=r"first\.pt") as raised:
        fusion_to_train(ScoreFusion(["coronal"], size="tiny"), str(tmp_path / "{plane}.pt"), earlier)
    assert one_line(raised)


def test_a_wrong_byte_in_listed_weights_is_refused(tmp_path):
    network = ScoreFusion(size="tiny", features=False)
    write({"objects": {"ema": network.state_dict()}}, tmp_path / "latest.pt")
    file = tmp_path / "model.pt"
    export_weights(str(tmp_path / "latest.pt"), str(file))
    write_json(tmp_path / "checksums.json", {"model.pt": sha256(file)})
    load_weights(network, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(BadInput, match=r"checksums\.json"):
        load_weights(network, file)


def test_a_fusion_takes_its_planes_from_one_file_that_holds_them_all(awaken, tmp_path):
    source = awaken(ScoreFusion(["axial", "coronal", "sagittal"], size="tiny"))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    network = load_members(ScoreFusion(["sagittal", "axial"], size="tiny"), str(tmp_path / "model.pt"))
    for member, index in zip(network.members, (2, 0), strict=True):
        for key, value in source.members[index].denoiser.state_dict().items():
            assert torch.equal(member.denoiser.state_dict()[key], value)
    with pytest.raises(BadInput, match=r"model\.pt: weights of another network"):
        load_members(ScoreFusion(["coronal", "sagittal"], size="compact"), str(tmp_path / "model.pt"))


@pytest.mark.parametrize(("epochs", "wanted", "fine"), [(3, 5, True), (3, 2, False), (4, 5, False)])
def test_only_a_finished_training_gets_more_epochs(engine, tmp_path, epochs, wanted, fine):
    """Three are done."""
    path, network = tmp_path / "latest.pt", plane()
    LatestCheckpoint(str(path), {"network": network}, {"max_epochs": epochs, "seed": 1}).save(engine)
    again = LatestCheckpoint(str(path), {"network": network}, {"max_epochs": wanted, "seed": 1})
    if fine:
        again.load(engine)
        return
    with pytest.raises(BadInput, match=f"of {epochs} epochs, 3 of them done, not of {wanted}; finish it") as raised:
        again.load(engine)
    assert one_line(raised)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer, steps: WarmupCosineSchedule(optimizer, warmup_steps=2, t_total=steps, end_lr=1e-6),
        lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps),
    ],
    ids=["cosine", "one cycle"],
)
def test_a_longer_training_goes_on_at_the_rate_of_the_longer_schedule(engine, tmp_path, schedule):
    """Twenty steps are done of forty."""
    path, rates = tmp_path / "latest.pt", {}
    for name, epochs, steps in (("short", 3, 20), ("long", 6, 40), ("alone", 6, 40)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = schedule(optimizer, steps)
        checkpoint = LatestCheckpoint(str(path), {"scheduler": scheduler}, {"max_epochs": epochs})
        if name == "long":
            checkpoint.load(engine)
        rates[name] = []
        for _ in range(20 if name != "alone" else 40):
            optimizer.step()
            scheduler.step()
            rates[name].append(scheduler.get_last_lr()[0])
            if name == "long" and len(rates[name]) == 19:
                break
        if name == "short":
            checkpoint.save(engine)
    assert rates["long"] == pytest.approx(rates["alone"][20:39])


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"batch_size": 8}, "batch_size = 16, not 8"),
        ({"loss_function": NoiseLoss(l1=5.0)}, "loss_function#l1 = 0.0, not 5.0"),
        ({"diffusion": Diffusion(regression_share=0.9)}, "diffusion#regression_share = 0.0, not 0.9"),
        ({"diffusion": None}, "diffusion = Diffusion, not None"),
        ({"regions": {"WT": [1, 2]}}, r"regions#WT = \[1\], not \[1, 2\]"),
        ({}, None),
        ({"of_a_later_version": 3}, None),
    ],
)
def test_a_training_goes_on_only_with_what_changes_what_is_learned_the_same(changed, fact, engine, tmp_path):
    path, network = str(tmp_path / "latest.pt"), plane()
    settings = {"batch_size": 16, "loss_function": NoiseLoss(), "diffusion": Diffusion(), "regions": {"WT": [1]}}
    LatestCheckpoint(path, {"network": network}, settings).save(engine)
    again = LatestCheckpoint(path, {"network": network}, settings | changed)
    if fact is None:
        again.load(engine)
        return
    with pytest.raises(BadInput, match=rf"latest\.pt: was made with {fact}; give the same, or .*another folder") as raised:
        again.load(engine)
    assert one_line(raised)


def test_a_finished_training_says_that_nothing_is_trained(engine, tmp_path, caplog):
    caplog.set_level("INFO")
    path = save(engine, tmp_path / "latest.pt", plane())
    engine.state.max_epochs = 3
    LatestCheckpoint(path, {"network": plane()}).load(engine)
    assert "is finished: nothing is trained; raise max_epochs to go on" in caplog.text
    assert "resumed" not in caplog.text


def test_a_fusion_goes_on_with_the_planes_it_began_with_alone(engine, tmp_path, awaken):
    save(engine, tmp_path / "coronal.pt", awaken(plane()))
    save(engine, tmp_path / "other" / "coronal.pt", awaken(plane()))
    first, same, other = (
        fusion_to_train(ScoreFusion(["coronal"], size="tiny"), str(tmp_path / folder / "{plane}.pt"))
        for folder in (".", ".", "other")
    )
    awaken(first.fusion)  # the fusion alone has learned
    path = save(engine, tmp_path / "fusion.pt", first)
    LatestCheckpoint(path, {"network": same}).check()
    with pytest.raises(BadInput, match=r"fusion\.pt: was made with planes of other weights; give the first ones") as raised:
        LatestCheckpoint(path, {"network": other}).load(engine)
    assert one_line(raised)


def test_a_broken_validation_case_ends_a_training_before_its_first_step(tmp_path):
    class Cases:
        def __len__(self):
            return 2

        def __getitem__(self, place):
            if place:
                raise BadInput("case b: cannot be read")

    with pytest.raises(BadInput, match="case b"):
        check_start(LatestCheckpoint(str(tmp_path / "latest.pt"), {}), Cases())


def test_a_full_disk_is_one_line(engine, tmp_path):
    """A limit on the size of files is met as a full disk is."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(BadInput, match=r"latest\.pt: cannot be written \(.*\); make room") as raised:
            save(engine, tmp_path / "run" / "latest.pt", plane())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert one_line(raised)
    assert not (tmp_path / "run").exists()
