# SPDX-License-Identifier: Apache-2.0
"""What every loop is asked, whatever its file: times, sizes, values, and whether it closes."""

import numpy as np
import pytest
from cine_files import beating

from scripts.data.cine.cine import check_shape, check_times, check_voxels, closes
from scripts.errors import BadInput


def even(frames=12, step=0.03):
    return np.arange(frames) * step


@pytest.mark.parametrize("step", [0.0315, 1 / 30, 0.0071])
def test_times_that_a_clock_rounded_are_even(step):
    check_times("a", np.rint(even(step=step) * 1000) / 1000, clock=1e-3)


def test_times_within_a_tenth_are_even_and_beyond_it_are_not(rng):
    check_times("a", even() + rng.uniform(-0.0014, 0.0014, 12))  # steps off by 2.8 of 30 ms at most
    late = even()
    late[6:] += 0.0036
    with pytest.raises(BadInput, match=r"^a: its frame times vary by more than 10%: frames 6 and 7 are 33\.6 ms apart"):
        check_times("a", late)


@pytest.mark.parametrize("lost", [1, 3])
def test_frames_that_are_missing_within_a_loop_are_counted(lost, rng):
    first = int(rng.integers(2, 12 - lost - 1))
    times = np.delete(even(), range(first, first + lost))
    frames = f"{lost} frame{'s' * (lost > 1)}: frames {first} and {first + 1} are {30 * (lost + 1)} ms apart, the others 30 ms"
    with pytest.raises(BadInput, match=f"^a: lacks {frames}; send the whole series again"):
        check_times("a", times)


@pytest.mark.parametrize("times", [[0, 0.03, 0.03, 0.06], [0, 0.06, 0.03, 0.09], [0, 0.03, np.nan, 0.09], [0, 0, 0]])
def test_time_that_does_not_go_on_is_refused(times):
    with pytest.raises(BadInput, match="time must go on from frame to frame"):
        check_times("a", np.array(times))


@pytest.mark.parametrize("step", [31.6, 1e-4])
def test_frame_times_that_no_film_has_are_refused(step):
    with pytest.raises(BadInput, match="which no film of something that moves is"):
        check_times("a", even(step=step))


def test_a_single_frame_tiny_frames_and_too_many_are_refused():
    for shape, fact in {
        (64, 64, 3, 1): "is a single frame; a cine needs several",
        (64, 64, 3, 4): "has 4 frames, but a loop needs at least 5; give the whole loop",
        (64, 4, 1, 9): "its frames are 64x4, but they need at least 5 pixels a side",
        (4096, 4096, 1, 900): "cut out the frames or the part that is wanted",
    }.items():
        with pytest.raises(BadInput, match=fact):
            check_shape("a", shape)


def test_what_does_not_move_or_has_no_values_is_told():
    still = np.repeat(beating()[..., :1], 9, axis=3).astype(np.float32)
    assert check_voxels("a", still) == ["all of its frames are the same: nothing moves"]
    frozen = beating().astype(np.float32)
    frozen[..., 4] = frozen[..., 3]
    assert check_voxels("a", frozen) == ["frame 5 is the same as the one before, as are 0 others"]
    assert check_voxels("a", beating().astype(np.float32)) == []
    padded = beating().astype(np.float32)
    padded[:, :, [0, 2]] = 0
    fact = "holds a single value in slice 1, 3, which nothing is made of: it stays as it is"
    assert check_voxels("a", padded) == [fact]
    for value, fact in ((0.0, "every voxel of every frame is 0"), (np.nan, "NaN or infinite")):
        with pytest.raises(BadInput, match=fact):
            check_voxels("a", np.full_like(still, value))


def test_a_whole_heartbeat_closes_and_half_of_one_does_not():
    assert closes(beating((24, 20, 2, 20)).astype(np.float32))
    assert not closes(beating((24, 20, 2, 20))[..., :10].astype(np.float32))
