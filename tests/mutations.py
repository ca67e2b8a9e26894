# SPDX-License-Identifier: Apache-2.0
"""Whether tests notice: `python tests/mutations.py` breaks one chosen line at a time, of a copy; see docs/reliability.md."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "runs", "demo", "fuzz", "__pycache__", "shared")


class Mutation(NamedTuple):
    """In a file of `scripts` the line, which stands there once, becomes another; tests that must fail."""

    file: str
    line: str
    broken: str
    tests: str


MUTATIONS = [
    Mutation("networks/fusion_net.py", "+ 1.0 / self.members", "+ 0.9 / self.members", "networks/test_fusion_net.py"),
    Mutation("networks/fusion_net.py", "return fused + self.residual_scale *", "return fused - self.residual_scale *",
             "networks/test_fusion_net.py"),
    Mutation("measurement/degradations.py", "return volume + self(measured - volume) if", "return volume + self(measured) if",
             "measurement/test_degradations.py"),
    Mutation("measurement/degradations.py", "+ self.repeat(missing) * inside", "+ self.repeat(missing)",
             "measurement/test_degradations.py"),
    Mutation("measurement/slices.py", "np.asarray(shares / shares.sum(axis=1, keepdims=True))", "np.asarray(shares)",
             "measurement/test_slice_profile.py"),
    Mutation("measurement/joint.py", "slope = _adjoint(scans, rest) - damping * change", "slope = _adjoint(scans, rest)",
             "measurement/test_joint.py"),
    Mutation("diffusion/process.py", "return level.sqrt() * epsilon - (1 - level).sqrt() * x_0",
             "return level.sqrt() * epsilon + (1 - level).sqrt() * x_0", "diffusion/test_process.py"),
    Mutation("diffusion/samplers.py", "variance = eta**2 *", "variance = eta *", "diffusion/test_samplers.py"),
    Mutation("data/grid.py", "affine @ orientations.inv_ornt_aff(turn, voxels.shape[1:])", "affine.copy()",
             "data/test_grid.py"),
    Mutation("data/advice.py", "coarse_from_fine[:3, 3] = (step - 1) / 2", "coarse_from_fine[:3, 3] = 0",
             "data/test_volumes.py"),
    Mutation("data/registration.py", "LPS = np.diag([-1.0, -1.0, 1.0, 1.0])", "LPS = np.eye(4)", "data/test_registration.py"),
    Mutation("data/splits.py", "subjects = sorted({subject_of(case) for case in cases})", "subjects = sorted(cases)",
             "data/test_cases.py"),
    Mutation("data/dicom/whitelist.py", 'IF_THERE = ("IssuerOfPatientID",', 'IF_THERE = ("InstitutionName",',
             "data/dicom/test_write_dicom.py"),
    Mutation("data/dicom/choose.py", "if own == max(ranks)]", "if own == min(ranks)]", "data/dicom/test_choose_series.py"),
    Mutation("data/augmentation.py", "return (image.flip(1), label.flip(1), True)", "return (image.flip(1), label, True)",
             "data/test_augmentation.py"),
    Mutation("training/checkpoint.py", 'torch.set_rng_state(saved["rng"])', "pass", "training/test_checkpoint.py"),
    Mutation("training/gradients.py", "parameter.grad = None", "pass", "training/test_gradients.py"),
    Mutation("running/ledger.py", 'line["input"] == input_hash(entry)', "True", "running/test_ledger.py"),
    Mutation("running/ledger.py", "there = all(place.is_file() and", "there = all(True or", "running/test_ledger.py"),
    Mutation("files.py", "_to_disk(part)", "pass", "test_files.py"),
    Mutation("evaluation/metrics.py", "margin = self.window // 2", "margin = 0", "evaluation/test_metrics.py"),
]  # fmt: skip


def noticed(mutation, copy):
    """Whether its tests fail, and pass without it."""
    file = copy / "scripts" / mutation.file
    content = file.read_text(encoding="utf-8")
    if content.count(mutation.line) != 1:
        return f"its line stands there {content.count(mutation.line)} times"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-x", "-p", "no:cacheprovider", f"tests/{mutation.tests}"]
    codes = []
    for text in (content, content.replace(mutation.line, mutation.broken)):
        file.write_text(text, encoding="utf-8")
        codes.append(subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False).returncode)
    file.write_text(content, encoding="utf-8")
    return "" if codes == [0, 1] else f"{mutation.tests} ended with {codes[0]} before and {codes[1]} after"


def main():
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        for number, mutation in enumerate(MUTATIONS, start=1):
            why = noticed(mutation, copy)
            missed += bool(why)
            print(f"{number} of {len(MUTATIONS)}: {mutation.file}: {mutation.broken}: {why or 'noticed'}", flush=True)
    print(f"{len(MUTATIONS) - missed} of {len(MUTATIONS)} were noticed")
    return missed


if __name__ == "__main__":
    sys.exit(main())
