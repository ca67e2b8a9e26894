# SPDX-License-Identifier: Apache-2.0
"""An application for MONAI Deploy: DICOM in, a derived DICOM series out. Only `app` imports the SDK."""
