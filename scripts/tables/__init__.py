# SPDX-License-Identifier: Apache-2.0
"""Tables: results of evaluations side by side, as the paper prints them."""

from .tables import tables

__all__ = ["tables"]
