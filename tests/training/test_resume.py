# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.utils._pytree import tree_leaves
from training_processes import draw_cases, exit_codes, gradients, replica, train


@pytest.mark.parametrize(("count", "workers"), [(3, 0), (1, 2)], ids=["three cases", "one case, two workers"])
def test_a_killed_and_resumed_training_equals_one_without_a_break_to_the_bit(count, workers, seed, tmp_path):
    folder, cases = str(tmp_path), draw_cases(tmp_path, seed, count)
    calls = {name: (train, (folder, name, cases, seed)) for name in ("whole", "broken")}
    # Workers cut the same samples as the process itself.
    codes = exit_codes((*calls["whole"], {}), (*calls["broken"], {"kill_at": 13, "workers": workers}))
    assert codes == [0, 9]
    assert not (tmp_path / "broken.end").exists()
    assert torch.load(tmp_path / "broken.pt")["iteration"] == 10
    assert exit_codes((*calls["broken"], {"start": 1, "workers": workers})) == [0]
    whole, broken = (torch.load(tmp_path / f"{name}.end") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    for name in whole:
        pairs = zip(tree_leaves(whole[name]), tree_leaves(broken[name]), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs), name


def test_two_processes_have_the_gradients_of_one_with_the_doubled_batch(seed, tmp_path):
    cases = draw_cases(tmp_path, seed)
    assert exit_codes(*((replica, (rank, str(tmp_path), cases, seed), {}) for rank in range(2))) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, gradient in gradients(cases, seed).items():
        assert torch.equal(first[name], second[name])
        # the loss is float32, all else float64; small gradients are differences of large ones
        torch.testing.assert_close(first[name], gradient, rtol=1e-6, atol=1e-6 * gradient.abs().max().item())
