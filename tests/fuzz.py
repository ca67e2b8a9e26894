# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E402
"""Mutated files through our readers: `python tests/fuzz.py nifti 100000 --seed 1`; see docs/reliability.md.

Whatever a file holds, a reader returns a volume or raises `BadInput` with one line that names the file, within `SECONDS` and
`MEMORY`. What breaks this is kept in the folder `--keep`, and its kind of fault is mended and made a test.
"""

import argparse
import gzip
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom

sys.path[:0] = [str(Path(__file__).parents[1]), *(str(Path(__file__).parent / "data" / room) for room in ("dicom", "cine"))]

import cine_files
from dicom_series import compress, random_affine, random_voxels, write_enhanced, write_series
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from scripts.data.cine import read_cine
from scripts.data.cine.video import encode
from scripts.data.dicom import find
from scripts.data.dicom.read import read_series
from scripts.data.read import read_source
from scripts.errors import BadInput

SECONDS, MEMORY = 10, 4 << 30  # of computing for one file; of the whole process, in bytes of addresses
BUSY = 6  # times as long by the clock, where others compute beside it
HEADER = 400  # bytes in which most of what steers a reader stands
EXTREME = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
PACKINGS = ("plain", "implicit", "deflated", "RLELossless", "JPEG2000Lossless", "JPEGLSLossless", "JPEGLosslessProcess14_1")
BY_GDCM, SELDOM = ("JPEG2000Lossless", "JPEGLosslessProcess14_1"), 0.1
SYNTAXES = {"implicit": ImplicitVRLittleEndian, "deflated": DeflatedExplicitVRLittleEndian}
META_START = 144  # of what follows the length of the file meta information
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, 1e-30)


def mutated(content, rng):
    """Bytes with some changed, cut, doubled or filled in."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(min(HEADER, len(data)) if rng.random() < 0.7 else len(data)) if data else 0)
        kind = rng.integers(7)
        if kind == 0:
            data[place : place + 1] = bytes([int(rng.integers(256))])
        elif kind == 1:
            width = int(rng.choice([1, 2, 4, 8]))
            value = int(rng.choice(EXTREME)) & (256**width - 1)
            data[place : place + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))
        elif kind == 2:
            data[place : place + 4] = np.float32(rng.choice(FLOATS)).tobytes()
        elif kind == 3:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 4 and rng.random() < 0.3:
            del data[place:]
        elif kind == 5:
            data[place:place] = data[place : place + int(rng.integers(1, 64))]
        else:
            data[place : place + int(rng.integers(1, 64))] = b"\0" * int(rng.integers(1, 64))
        if not data:
            break
    return bytes(data)


def volumes(folder):
    """Small files of every format that one file holds."""
    import SimpleITK

    voxels = np.random.default_rng(0).integers(0, 900, (6, 7, 8)).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1, 4, 1]))
    nib.save(image, folder / "a.nii")
    nib.save(image, folder / "b.nii.gz")
    nib.save(nib.Nifti2Image(voxels, np.eye(4)), folder / "c.nii")
    nib.save(nib.MGHImage(voxels.astype(np.float32), np.eye(4)), folder / "d.mgz")
    for name in ("e.nrrd", "f.mha"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(folder / name))
    return sorted(folder.iterdir())


class Nifti:
    """One volume, packed or not, of which what is inside or outside of the packing changes."""

    def __init__(self, folder):
        (folder / "seeds").mkdir()
        self.seeds = {path.name: path.read_bytes() for path in volumes(folder / "seeds")}
        self.folder = folder

    def write(self, rng):
        name = str(rng.choice(sorted(self.seeds)))
        content = self.seeds[name]
        if name.endswith("z") and rng.random() < 0.7:
            content = zlib_packed(mutated(gzip.decompress(content), rng), rng)
        else:
            content = mutated(content, rng)
        path = self.folder / name
        path.write_bytes(content)
        self.changed = {path}
        return path

    @staticmethod
    def read(path):
        read_source(path)


class Dicom:
    """A study as plain files, with implicit types, deflated, compressed or in one file, of which one file or several change."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.studies = []
        for name in (*PACKINGS, "enhanced"):
            study = folder / name
            if name == "enhanced":
                write_enhanced(study / "0001.dcm", random_voxels(rng, (12, 10, 4)), random_affine(rng))
            else:
                files = write_series(study, random_voxels(rng, (12, 10, 4)), random_affine(rng))
                for path in files if name not in ("plain", "implicit", "deflated") else ():
                    compress(path, name)
                for path in files if name in SYNTAXES else ():
                    dataset = pydicom.dcmread(path)
                    dataset.file_meta.TransferSyntaxUID = SYNTAXES[name]
                    dataset.save_as(path, implicit_vr=name == "implicit", little_endian=True)
            self.read(study, strict=True)
            self.studies.append({path: path.read_bytes() for path in sorted(study.rglob("*.dcm"))})
        # What GDCM decodes takes a third of a second a series: its process is started anew.
        often = np.array([SELDOM if name in BY_GDCM else 1.0 for name in (*PACKINGS, "enhanced")])
        self.shares, self.changed = often / often.sum(), {}

    def write(self, rng):
        for path, content in self.changed.items():
            path.write_bytes(content)
        files = self.studies[int(rng.choice(len(self.studies), p=self.shares))]
        count = 1 if rng.random() < 0.3 else int(rng.integers(1, len(files) + 1))
        self.changed = {path: files[path] for path in rng.permutation(sorted(files))[:count]}
        for path, content in self.changed.items():
            path.write_bytes(self._mutated(content, rng, deflated=path.parent.name == "deflated"))
        return path.parent

    @staticmethod
    def _mutated(content, rng, *, deflated):
        """With the file meta information, preamble included, in a fifth of the draws; a deflated one also within."""
        start = META_START + int.from_bytes(content[META_START - 4 : META_START], "little")
        if deflated and rng.random() < 0.7:
            inside = mutated(zlib.decompress(content[start:], -zlib.MAX_WBITS), rng)
            return content[:start] + zlib_packed(inside, rng, window=-zlib.MAX_WBITS)
        head = 0 if rng.random() < 0.2 else start
        return content[:head] + mutated(content[head:], rng)

    @staticmethod
    def read(folder, *, strict=False):
        """All series; strict: there is one, and it can be read."""
        series = find.find_series(folder).series
        assert series or not strict
        for one in series:
            try:
                read_series(one)
            except BadInput as error:
                assert "\n" not in str(error) and not strict


def loops(folder):
    """Small cines of every kind that one file holds."""
    beating = cine_files.beating((24, 16, 1, 8), np.random.default_rng(0))
    frames = np.ascontiguousarray((beating[:, :, 0] // 4).transpose(2, 1, 0).astype(np.uint8))
    colours = np.stack([frames, frames // 2, 255 - frames], axis=-1)
    for suffix in (".mp4", ".avi", ".gif"):
        with (folder / f"a{suffix}").open("wb") as file:
            encode(colours, 0.04, file, suffix=suffix)
    cine_files.write_film(folder / "b.dcm", frames)
    cine_files.write_enhanced(folder / "c.dcm", beating, np.diag([2.0, 2, 8, 1]))
    image = nib.Nifti1Image(beating.astype(np.int16), np.eye(4))
    image.header["pixdim"][4], image.header["xyzt_units"] = 32, 18
    nib.save(image, folder / "d.nii.gz")
    return sorted(folder.iterdir())


class Cine:
    """One loop in one file, of any kind."""

    def __init__(self, folder):
        (folder / "seeds").mkdir()
        self.seeds = {path.name: path.read_bytes() for path in loops(folder / "seeds")}
        self.folder = folder

    def write(self, rng):
        name = str(rng.choice(sorted(self.seeds)))
        content = self.seeds[name]
        head = 132 if name.endswith(".dcm") else 0
        path = self.folder / name
        path.write_bytes(content[:head] + mutated(content[head:], rng))
        self.changed = {path}
        return path

    @staticmethod
    def read(path):
        read_cine(path)


def zlib_packed(content, rng, *, window=31):
    """gzip or what zlib calls another window, now and then of a bomb."""
    if rng.random() < 0.01:
        content = content[:352] + b"\0" * (80 << 20)
    packer = zlib.compressobj(9 if len(content) < 1 << 20 else 1, zlib.DEFLATED, window)
    return packer.compress(content) + packer.flush()


KINDS = {"nifti": Nifti, "dicom": Dicom, "cine": Cine}


def fault_of(kind, path):
    """Why reading a file broke the promise, or ""."""
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, BUSY * SECONDS)  # what waits for nothing computes nothing
    try:
        kind.read(path)
        outcome = ""
    except BadInput as error:
        line = str(error)
        outcome = "" if "\n" not in line and (path.name in line or line.startswith("series ")) else f"line: {line[:200]!r}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
    return outcome or ("too slow" if time.process_time() - start > SECONDS else "")


def alarm(number, frame):
    raise TimeoutError


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, alarm)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print
    faults, start, said = Counter(), time.monotonic(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kind = KINDS[given.kind](Path(folder))
        number = files = 0
        while files < given.count:
            number += 1
            path = kind.write(np.random.default_rng((given.seed, number)))
            files += len(kind.changed)
            if fault := fault_of(kind, path):
                faults[fault.split(":")[0]] += 1
                given.keep.mkdir(exist_ok=True)
                kept = given.keep / f"{given.kind}_{given.seed}_{number}{''.join(path.suffixes)}"
                shutil.copytree(path, kept, dirs_exist_ok=True) if path.is_dir() else shutil.copy(path, kept)
                print(f"{kept}: {fault}", flush=True)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"{files} of {given.count}, {sum(faults.values())} faults", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    facts = {
        "kind": given.kind,
        "files": files,
        "read": number,
        "seed": given.seed,
        "faults": dict(faults),
        "peak_gb": round(peak, 2),
    }
    print(json.dumps({**facts, "seconds": round(time.monotonic() - start)}))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
