# SPDX-License-Identifier: Apache-2.0
"""Systems side by side: a table of what is trained and run, and what runs it."""
