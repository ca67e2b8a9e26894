# SPDX-License-Identifier: Apache-2.0
"""How fast and how frugal: measured on the machine at hand."""
