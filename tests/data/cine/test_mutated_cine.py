# SPDX-License-Identifier: Apache-2.0
"""Bytes of loops that change at random: read or refused by a line, in bounded time and memory; `make fuzz` does more."""

import resource
import signal

import fuzz
import pytest

FILES, MOST_GB = 150, 2.0  # files; 0.9 GB was the most of 12,000


@pytest.fixture
def bounded():
    """The alarm of `fuzz`, and what the memory of this process grew to at most."""
    before = signal.signal(signal.SIGALRM, fuzz.alarm)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.signal(signal.SIGALRM, before)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1e6 < MOST_GB


@pytest.mark.filterwarnings("ignore")  # of pydicom, on what it is given
def test_mutated_videos_and_multi_frame_dicom_are_read_or_refused_by_a_line(bounded, tmp_path, rng):
    kind = fuzz.Cine(tmp_path)
    faults = [fault for _ in range(FILES) if (fault := fuzz.fault_of(kind, kind.write(rng)))]
    assert faults == []
