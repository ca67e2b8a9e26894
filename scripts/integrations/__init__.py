# SPDX-License-Identifier: Apache-2.0
"""Other programs that this bundle works in; each room has its own requirements and knows nothing of the others."""
