# SPDX-License-Identifier: Apache-2.0
"""Where 0.6 had it; configs of users name it. Gone in 0.8."""

from .running.checks import preflight

__all__ = ["preflight"]
