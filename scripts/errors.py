# SPDX-License-Identifier: Apache-2.0
"""The one error a user can mend."""


class BadInput(ValueError):
    """Something the user gave cannot be used; the message is one line that names it, the fact and the remedy."""
