# SPDX-License-Identifier: Apache-2.0
"""A word of its own in every text of a DICOM file, to see where each gets to."""

import re
from collections.abc import Callable
from functools import cache

from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary

# Value representations that hold text, and what a word of each looks like; numbers as text are geometry and are left alone.
WORDS: dict[str, Callable[[int], str]] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), lambda tag: f"CANARY{tag:08X}"),
    "UI": lambda tag: f"1.2.77777.{tag}.88888",
    "DA": lambda tag: f"{1000 + tag % 800}{tag // 800 % 12 + 1:02d}{tag // 9600 % 28 + 1:02d}",
    "TM": lambda tag: f"11{tag % 60:02d}{tag // 60 % 60:02d}.{tag % 1000000:06d}",
    "DT": lambda tag: f"19110101{tag % 24:02d}5959.{tag % 1000000:06d}",
    "AS": lambda tag: f"{100 + tag % 900}D",
}
PLACE = 0x00990000  # of private words and those of the file meta, beside the tags that the standard knows
# What decides how a file is read, or whether it is one.
NEEDED = {"SpecificCharacterSet", "SOPClassUID", "Modality", "ImageType", "ScanningSequence", "PhotometricInterpretation",
          "PatientSex", "PatientPosition", "LossyImageCompression", "PatientIdentityRemoved", "SOPInstanceUID",
          "SeriesInstanceUID", "ContrastBolusAgentSequence", "SharedFunctionalGroupsSequence",
          "PerFrameFunctionalGroupsSequence"}  # fmt: skip
# Whom and what a name is looked for in first.
ALWAYS = {"PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "PatientAddress",
          "PatientComments", "InstitutionName", "OperatorsName", "ReferringPhysicianName", "ProtocolName", "StudyDescription",
          "ContrastBolusAgent", "AcquisitionContrast", "ImageComments", "DeviceSerialNumber", "StationName",
          "IssuerOfPatientID", "DeidentificationMethod"}  # fmt: skip


@cache
def _texts() -> dict[str, tuple[int, str, str]]:
    """By keyword: tag, representation and word of every text that the standard knows in an image."""
    known = {keyword: (tag, representation) for tag, (representation, _, _, _, keyword) in DicomDictionary.items()}
    return {
        keyword: (tag, representation, WORDS[representation](tag))
        for keyword, (tag, representation) in known.items()
        if tag >= 0x00080000 and representation in WORDS and keyword and keyword not in NEEDED
    }


def plant(path, *, share=1.0, rng=None, **tags) -> None:
    """Fill a file. share: of the tags, at random, beside `ALWAYS`. tags: keywords that get another value."""
    dataset = dcmread(path)
    texts = {
        key: value for key, value in _texts().items() if key in dataset or key in ALWAYS or share == 1 or rng.random() < share
    }
    for tag, representation, word in texts.values():
        dataset.add_new(tag, representation, word)
    inner = Dataset()
    for tag, representation, word in list(texts.values())[:: max(len(texts) // 40, 1)]:
        inner.add_new(tag, representation, word)
    sequences = [tag for tag, (representation, *_, keyword) in DicomDictionary.items() if representation == "SQ" and keyword]
    for tag in sequences:
        if DicomDictionary[tag][4] not in NEEDED and (share == 1 or rng.random() < share):
            dataset.add_new(tag, "SQ", [inner])
    private = dataset.private_block(0x0099, f"CANARY{PLACE:08X}", create=True)
    for element, representation in enumerate(("LO", "PN", "UT", "OB", "UN"), start=1):
        word = f"CANARY{PLACE + element:08X} "
        private.add_new(element, representation, word.encode() if representation in ("OB", "UN") else word.strip())
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = f"CANARY{PLACE + 11:08X}"
    meta.ImplementationVersionName = f"CANARY{PLACE + 12:08X}"
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = "1.2.77777.13.88888", f"CANARY{PLACE + 14:08X}".encode()
    dataset.preamble = f"CANARY{PLACE + 15:08X}".encode().ljust(128, b"\0")
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


WORD = re.compile(r"CANARY[0-9A-F]{8}|1\.2\.77777\.\d+\.88888|1911\d{10}\.\d{6}|11\d{4}\.\d{6}|\d{8}")


def found_in(text: str) -> set[str]:
    """Keywords of the tags, or hexadecimal places, whose words stand in a text; but for ages, which are numbers."""
    keywords = {word: keyword for keyword, (_, _, word) in _texts().items()}
    return {keywords.get(word, word) for word in WORD.findall(text.upper()) if word in keywords or word.startswith("CANARY")}
