# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts.integrations.deploy -i DICOM -o OUT [-m MODELS]`, as MONAI Deploy calls an application."""

import os
import sys
from pathlib import Path

# A packaged application is started as a folder, not as a module: imports are absolute.
from monai.deploy.core import RuntimeEnv, init_app_context

from scripts import bundle_root
from scripts.errors import root_cause
from scripts.integrations.deploy.app import TranslationApp
from scripts.integrations.deploy.bundle import SETTINGS, Bundle


def main() -> int:
    """Run the application; bad input is one line and exit code 1."""
    models = str(Path(bundle_root(), "models"))
    context = init_app_context(sys.argv, RuntimeEnv({"model": ("HOLOSCAN_MODEL_PATH", models)}))
    settings = os.environ.get("HOLOSCAN_CONFIG_PATH", SETTINGS)
    try:
        bundle = Bundle(settings, input_dir=context.input_path, output_dir=context.output_path, models=context.model_path)
        app = TranslationApp(bundle)
    except Exception as error:
        known = root_cause(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return 1
    app.run()
    return app.exit_code


if __name__ == "__main__":
    sys.exit(main())
