# SPDX-License-Identifier: Apache-2.0
"""How long it takes until a network is called: `python -m scripts.benchmarks.start restore IN -o OUT`, any command."""

import os
import sys
import time
from typing import Any

from ..__main__ import main
from ..start import start


def _tell(module: Any, inputs: Any) -> None:
    packages = {name.partition(".")[0] for name in sys.modules}
    print(
        f"first call of a network after {time.process_time():.2f} CPU s; {len(sys.modules)} modules, of",
        *sorted(packages),
        flush=True,
    )
    os._exit(0)  # an exception would be told as a failure of the case


if __name__ == "__main__":
    start(alone=True)  # as the command does, before it imports PyTorch
    import torch

    torch.nn.modules.module.register_module_forward_pre_hook(_tell)
    sys.exit(main())
