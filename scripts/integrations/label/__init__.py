# SPDX-License-Identifier: Apache-2.0
"""MONAI Label: this folder is the app that its server starts (docs/label.md)."""
