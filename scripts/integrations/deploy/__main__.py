# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts.integrations.deploy -i DICOM -o OUT [-m MODELS]`, as MONAI Deploy calls an application."""

import os
import sys
from pathlib import Path

# A packaged application is started as a folder, not as a module: imports are absolute.
from monai.deploy.core import RuntimeEnv, init_app_context

from scripts import bundle_root
from scripts.errors import exit_code
from scripts.integrations.deploy.app import TranslationApp
from scripts.integrations.deploy.bundle import SETTINGS, Bundle


def main() -> int:
    """Run the application; bad input is one line and exit code 1."""
    models = str(Path(bundle_root(), "models"))
    context = init_app_context(sys.argv, RuntimeEnv({"model": ("HOLOSCAN_MODEL_PATH", models)}))
    settings = os.environ.get("HOLOSCAN_CONFIG_PATH", SETTINGS)
    apps: list[TranslationApp] = []

    def prepare() -> None:
        bundle = Bundle(settings, input_dir=context.input_path, output_dir=context.output_path, models=context.model_path)
        apps.append(TranslationApp(bundle))

    if failed := exit_code(prepare):
        return failed
    apps[0].run()
    return apps[0].exit_code


if __name__ == "__main__":
    sys.exit(main())
