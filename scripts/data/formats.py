# SPDX-License-Identifier: Apache-2.0
"""Files of volumes: which suffix is which format, and what opens it. Nothing here waits for PyTorch."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from ..errors import BadInput
from .doubts import SIDES_UNKNOWN, Affine, of_nifti

GZIP, HEADER_BYTES, NIFTI2, SHORTEST_HEADER = b"\x1f\x8b", 540, 540, 348
MOST_AFTER_VOXELS = 2**26  # bytes; some formats have a few kB there, a trap has gigabytes of zeros
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
PAIR_PARTS = {".hdr": "header", ".hdr.gz": "header", ".mat": "mat"}
NAMED_DATA = re.compile(r"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
SPACE = re.compile(
    r"^space:\s*(?:left|right|[lr][ap][si])|^(?:TransformMatrix|Rotation|Orientation)\s*=", re.MULTILINE | re.IGNORECASE
)
PACKED = re.compile(r"^CompressedData\s*=\s*True|^encoding:\s*gz", re.MULTILINE | re.IGNORECASE)
HEADER_END = re.compile(rb"^ElementDataFile\s*=[^\n]*\n|\n\r?\n", re.MULTILINE)
UNITS = re.compile(r"^(?:space units:|DistanceUnits\s*=)\s*(.+)$", re.MULTILINE | re.IGNORECASE)


class Opened(NamedTuple):
    """What a file's header says. affine: (4, 4) to RAS in mm; voxels: reads them all, and the file to its end.

    codes: of sform and qform, as a result is to have them. packed: whether the bytes of the file may be fewer than the voxels'.
    """

    affine: Affine
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    voxels: Callable[[], npt.NDArray[Any]]
    packed: bool
    doubts: Sequence[str] = ()
    codes: tuple[int, int] = (1, 1)


class Format(NamedTuple):
    """A name for messages, and what opens a file: it reads the header alone."""

    name: str
    open: Callable[[Path], Opened]


def _nifti(path: Path) -> Opened:
    """One file, or the image of a pair; Analyze, which knows no left and right, is a pair too. NIfTI-1 and -2."""
    paths = {"image": path, **{PAIR_PARTS[_ending(part)]: part for part in parts(path)[1:]}}
    if suffix(path).startswith(".img") and "header" not in paths:
        raise BadInput(f"{path}: has no header beside it, {stem(path)}.hdr; copy it there")
    with _stream(paths.get("header", path)) as stream:
        raw = stream.read(HEADER_BYTES)
    if len(raw) < SHORTEST_HEADER:
        raise BadInput(f"{path}: holds {len(raw)} bytes, too few for a volume; copy or convert it again")
    second = NIFTI2 in (int.from_bytes(raw[:4], order) for order in ("little", "big"))
    if suffix(path).startswith(".img") and not second and raw[344:347] != b"ni1":
        opened = _nibabel(nib.Spm2AnalyzeImage, paths)
        return opened._replace(doubts=[f"its header (Analyze) {SIDES_UNKNOWN}"], codes=(0, 0))
    kinds = (nib.Nifti2Pair, nib.Nifti2Image) if second else (nib.Nifti1Pair, nib.Nifti1Image)
    kind = kinds[not suffix(path).startswith(".img")]
    header = kind.header_class(raw[: kind.header_class.template_dtype.itemsize], check=False)
    lines, unit, codes = of_nifti(path, header, (*header.get_data_shape(), 1, 1)[:3])  # before nibabel mends what it should not
    opened = _nibabel(kind, {role: file for role, file in paths.items() if role != "mat"})
    return opened._replace(affine=np.diag([unit, unit, unit, 1.0]) @ opened.affine, doubts=lines, codes=codes)


def _mgh(path: Path) -> Opened:
    with _stream(path) as stream:
        raw = stream.read(nib.freesurfer.mghformat.header_dtype.itemsize)
    opened = _nibabel(nib.MGHImage, {"image": path})
    if np.frombuffer(raw, nib.freesurfer.mghformat.header_dtype)["goodRASFlag"].all():  # nibabel sets it
        return opened
    line = f"its header (goodRASFlag 0) {SIDES_UNKNOWN}, and voxels are taken as 1 mm"
    return opened._replace(doubts=[line], codes=(0, 0))


def _nibabel(kind: Any, paths: Mapping[str, Path]) -> Opened:
    def voxels() -> npt.NDArray[Any]:
        with _image(kind, paths) as (image, streams):
            values = np.asanyarray(image.dataobj).astype(np.float32)
            for stream in streams:
                _read_on(stream)
            return values

    with _image(kind, paths) as (image, streams):
        packed = any(isinstance(stream, gzip.GzipFile) for stream in streams)
        affine = np.array(image.affine, dtype=np.float64)
        return Opened(affine, tuple(map(int, image.shape)), image.get_data_dtype(), voxels, packed)


@contextmanager
def _image(kind: Any, paths: Mapping[str, Path]) -> Iterator[tuple[Any, list[Any]]]:
    """nibabel's image of files by their roles, and the streams it reads from; its log names no file, so it is silent."""
    with ExitStack() as stack:
        streams = {role: stack.enter_context(_stream(path)) for role, path in paths.items()}
        stack.enter_context(nib.imageglobals.LoggingOutputSuppressor())
        holders = {"mat": nib.FileHolder(filename=""), **{role: nib.FileHolder(fileobj=one) for role, one in streams.items()}}
        yield kind.from_file_map(holders), list(streams.values())


def _stream(path: Path) -> Any:
    """The content of a file, unpacked where it is packed, whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return gzip.open(path) if packed else path.open("rb")


def _read_on(stream: Any) -> None:
    """To the end, where gzip compares its checksum: a flipped bit gives other voxels and no other sign."""
    if isinstance(stream, gzip.GzipFile):
        after = 0
        while chunk := stream.read(2**20):
            after += len(chunk)
            if after > MOST_AFTER_VOXELS:
                raise ValueError("it goes on after its voxels")


def _itk(path: Path) -> Opened:
    """NRRD and MetaImage. They are in LPS, and mm unless they say otherwise."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    axes = reader.GetDimension()
    lps = np.eye(4)
    if axes >= 3:
        lps[:3, :3] = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3] * reader.GetSpacing()[:3]
        lps[:3, 3] = reader.GetOrigin()[:3]
    kind = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())  # as "16-bit signed integer", "vector of 32-bit float"
    if not (bits := re.match(r"(\d+)-bit", kind)):
        raise BadInput(f"{path}: holds {kind} values; convert it to one real number a voxel")
    dtype = np.dtype(f"{'f' if 'float' in kind else 'i'}{int(bits.group(1)) // 8}")
    shape = tuple(map(int, reader.GetSize()))
    return Opened(LPS_TO_RAS @ lps, shape, dtype, lambda: _itk_voxels(path, reader), packed=True, doubts=_itk_doubts(path))


def _itk_voxels(path: Path, reader: Any) -> npt.NDArray[Any]:
    import SimpleITK

    text, start = _text_header(path)
    if PACKED.search(text):
        data = parts(path)[-1]
        _inflate(data, start if data == path else 0)
    return np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()).T.astype(np.float32))


def _itk_doubts(path: Path) -> list[str]:
    text, _ = _text_header(path)
    units = set(re.findall(r"\w+", " ".join(UNITS.findall(text))))
    if units - {"mm"}:
        raise BadInput(f"{path}: its header is in {' '.join(sorted(units - {'mm'}))}; convert it to millimetres")
    return [] if SPACE.search(text) else [f"its header {SIDES_UNKNOWN}"]


def _inflate(path: Path, start: int) -> None:
    """What ITK leaves undone: compare the checksum of the compressed voxels, zlib or gzip, from a byte on."""
    inflater = zlib.decompressobj(wbits=47)
    with path.open("rb") as file:
        file.seek(start)
        while not inflater.eof:
            if not (chunk := inflater.unconsumed_tail or file.read(2**16)):
                raise EOFError("it ends before its voxels")
            inflater.decompress(chunk, 2**20)


def _text_header(path: Path) -> tuple[str, int]:
    """Of NRRD and MetaImage, and where it ends."""
    with path.open("rb") as file:
        raw = file.read(2**16)
    end = HEADER_END.search(raw)
    return raw[: end.end() if end else None].decode("latin-1"), end.end() if end else 0


NIFTI, MGH = Format("NIfTI", _nifti), Format("FreeSurfer MGH", _mgh)
PAIR, NRRD, META = Format("NIfTI pair", _nifti), Format("NRRD", _itk), Format("MetaImage", _itk)
# A format is a line here: suffix in lower case -> format.
FORMATS = {
    ".nii": NIFTI, ".nii.gz": NIFTI, ".img": PAIR, ".img.gz": PAIR, ".mgh": MGH, ".mgz": MGH,
    ".nrrd": NRRD, ".nhdr": NRRD, ".mha": META, ".mhd": META,
}  # fmt: skip


def suffix(path: str | Path) -> str:
    """Of a file of a volume, as it stands in `FORMATS`; "" of any other file."""
    name = Path(path).name.lower()
    return next((known for known in FORMATS if name.endswith(known)), "")


def stem(path: str | Path) -> str:
    """The file's name without the suffix of a volume."""
    name = Path(path).name
    return name[: len(name) - len(suffix(path))]


def format_of(path: str | Path) -> Format:
    """The format that a file's name tells. Raises BadInput when it tells none."""
    if not (known := suffix(path)):
        raise BadInput(f"{path}: no volume has such a name; convert it to one of {', '.join(FORMATS)}")
    return FORMATS[known]


def image_of(path: Path) -> Path:
    """The image of a pair by its header's name; any other path as it is."""
    if not path.is_file() or PAIR_PARTS.get(_ending(path)) != "header":
        return path
    return next((other for other in sorted(path.parent.iterdir()) if path in parts(other)[1:]), path)


def parts(path: Path) -> list[Path]:
    """The files that make a volume: itself, then the header of an image, or the data that a header names."""
    if suffix(path).startswith(".img"):
        beside = (other for other in sorted(path.parent.iterdir()) if _ending(other))
        return [path, *(other for other in beside if other.name[: -len(_ending(other))] == stem(path))]
    if suffix(path) in (".mhd", ".nhdr"):
        data = [path.parent / name for name in NAMED_DATA.findall(_text_header(path)[0])]
        return [path, *(file for file in data if file.is_file())]
    return [path]


def _ending(path: Path) -> str:
    return next((ending for ending in PAIR_PARTS if path.name.lower().endswith(ending)), "")
