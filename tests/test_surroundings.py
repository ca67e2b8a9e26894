# SPDX-License-Identifier: Apache-2.0
import pytest
from surroundings import needs, skipped_in_words


def test_what_was_skipped_is_one_line_by_what_it_needs():
    reasons = ["Skipped: needs chromium", "needs ../shared/data", "Skipped: needs ../shared/data", "a reason of its own"]
    assert skipped_in_words(reasons) == "4 skipped: 2 need ../shared/data, 1 needs chromium, 1 a reason of its own"
    assert skipped_in_words([]) is None


@pytest.mark.parametrize(("there", "skipped"), [(None, True), (False, True), ("/usr/bin/chromium", False)])
def test_a_test_is_skipped_when_what_it_needs_is_not_there(there, skipped):
    mark = needs("chromium", there).mark
    assert bool(mark.args[0]) == skipped
    assert mark.kwargs["reason"] == "needs chromium"
