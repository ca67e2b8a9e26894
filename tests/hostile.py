# SPDX-License-Identifier: Apache-2.0
"""Files made to harm, written when a test runs: weights, zips and configs. What runs code would make the file `canary`."""

import builtins
import os
import pickle
import stat
import subprocess
import zipfile
from collections import OrderedDict

import torch

from scripts.networks import ScoreFusion

MANY, HUGE = 1_001, 10**15  # entries, where so many are too many; bytes


class _Gadget:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class _Module(torch.nn.Module):
    """A whole module, as `torch.save(module)` pickles it, with such a gadget in it."""

    def __init__(self, gadget):
        super().__init__()
        self.gadget = gadget


def weights(folder, canary):
    """By kind: a file in place of weights."""
    state = ScoreFusion(size="tiny").state_dict()
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    gadgets = {
        "os.system": (_Gadget(os.system, touch), 0),
        "builtins.eval": (_Gadget(builtins.eval, code), 2),
        "builtins.exec": (_Gadget(builtins.exec, code), 3),
        "subprocess": (_Gadget(subprocess.check_call, ["touch", str(canary)]), 4),
        "pickle.loads": (_Gadget(pickle.loads, pickle.dumps(_Gadget(os.system, touch))), 5),
    }
    for name, (gadget, protocol) in gadgets.items():
        (folder / f"{name}.pt").write_bytes(pickle.dumps({"a": gadget}, protocol))
    first = next(key for key in state if state[key].dim() > 1)
    saved = {
        "in zip": {**state, first: _Gadget(os.system, touch)},
        "whole module": _Module(_Gadget(os.system, touch)),
        "foreign keys": {f"other.{key}": value for key, value in state.items()},
        "list": list(state.values()),
        "absurd size": {**state, first: torch.zeros(1).expand(10**6, 10**6)},
        "absurd size in a checkpoint": {"objects": {"ema": {first: torch.zeros(1).expand(10**6, 10**6)}}},
        "on no device": {**state, first: torch.empty(10**9, 10**9, device="meta")},
        "complex": {key: value.to(torch.complex64) for key, value in state.items()},
        "integers": {key: value.long() for key, value in state.items()},
        "no tensors": OrderedDict.fromkeys(state, 1.0),
    }
    for name, content in saved.items():
        torch.save(content, folder / f"{name}.pt")
    torch.jit.script(torch.nn.ReLU()).save(folder / "torchscript.pt")
    torch.save(state, whole := folder / "whole")
    (folder / "truncated.pt").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    torch.save({**state, first: torch.zeros(2**24)}, whole)
    with zipfile.ZipFile(whole) as there, zipfile.ZipFile(folder / "packed.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in there.namelist():
            bomb.writestr(member, there.read(member))
    whole.unlink()
    return {file.stem: file for file in sorted(folder.glob("*.pt"))}


def zips(folder, scan, canary):
    """By kind: a zip in place of data, with a scan in it that could be restored."""
    entries = {"slip": f"../../{canary.name}", "absolute": str(canary), "of Windows": f"..\\..\\{canary.name}"}
    for name, entry in entries.items():
        with _zip_of(scan, folder / f"{name}.zip") as archive:
            archive.writestr(entry, b"x")
    with _zip_of(scan, folder / "link.zip") as archive:
        link = zipfile.ZipInfo("b_t1.nii.gz")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    for name, size in {"ratio": 5 * 10**9, "size": HUGE, "liar": 10}.items():  # what it says that it holds
        with _zip_of(scan, folder / f"{name}.zip") as archive:
            archive.writestr("b_t1.nii.gz", bytes(10**6))
            archive.filelist[-1].file_size = size
    with zipfile.ZipFile(folder / "nested.zip", "w") as archive:
        for name in ("ratio", "slip"):
            archive.write(folder / f"{name}.zip", f"{name}.zip")
    with _zip_of(scan, folder / "entries.zip") as archive:
        archive.filelist += archive.filelist * MANY
    return {file.stem: file for file in sorted(folder.glob("*.zip"))}


def _zip_of(scan, path):
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    archive.write(scan, "a_t1.nii.gz")
    return archive


CONFIGS = {
    "os.system": "sampler: {_target_: os.system, command: touch CANARY}",
    "nested target": "sampler#_target_: os.system\nsampler#command: touch CANARY",
    "target by reference": "title: os.system\nsampler: {_target_: '@title', command: touch CANARY}",
    "ours that writes": "sampler: {_target_: scripts.files.write_text, path: CANARY, text: x}",
    "import": "imports: ['$import os', '$os.system(\"touch CANARY\")']",
    "expression": "steps: $__import__('os').system('touch CANARY')",
    "key in a list": "planes: [coronal, \"$open('CANARY', 'w')\"]",
    "macro": "steps: '%other.yaml#steps'",
    "debugger": "sampler: {_target_: scripts.diffusion.sample_ddim, _mode_: debug}",
    "circle": "steps: '@samples'\nsamples: '@steps'",
    "circle through ours": "sigma_data: '@inferer'",
    "alias of itself": "planes: &planes [coronal, *planes]",
    "laughs": "planes: &a [x, x]\nconditions: &b [*a, *a]\nblock: [*b, *b]",
    "deep": "planes: " + "[" * 3000 + "]" * 3000,
}


def configs(folder, canary):
    """By kind: an overlay."""
    for name, text in CONFIGS.items():
        (folder / f"{name}.yaml").write_text(text.replace("CANARY", str(canary)) + "\n")
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
