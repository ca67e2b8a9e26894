# SPDX-License-Identifier: Apache-2.0
"""What `monailabel start_server --app scripts/integrations/label` opens: a file of this name, outside of any package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from scripts.integrations.label.app import TranslationApp

__all__ = ["TranslationApp"]
