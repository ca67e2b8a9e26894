# SPDX-License-Identifier: Apache-2.0
"""A BIDS-App: scans of a BIDS data set restored, and the results as BIDS derivatives (docs/bids.md)."""
