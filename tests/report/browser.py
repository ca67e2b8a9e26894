# SPDX-License-Identifier: Apache-2.0
"""A page in a real browser, without a window: what became of it, and what it complained of."""

import shutil
import subprocess

from surroundings import needs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = needs("chromium", CHROMIUM)
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_GL = ("--disable-gpu", "--disable-3d-apis")
MOST_S = 60  # of the browser's own clock, which stands still while nothing waits for it


def opened(page, profile, script, *, flags=SOFTWARE_GL):
    """The page's HTML after the body of an async function ran in it. profile: a folder, which keeps what pages stored.

    Whatever the page or the browser writes to the console about it is an error.
    """
    told = f"<script>(async () => {{ {script} }})().catch((error) => console.error(error.message));</script></body>"
    copy = page.with_name(f"opened_{page.name}")
    copy.write_text(page.read_text().replace("</body>", told))
    command = [CHROMIUM, "--headless", "--no-sandbox", *flags, "--enable-logging=stderr", "--dump-dom"]
    clock = f"--virtual-time-budget={1000 * MOST_S}"
    ended = subprocess.run(
        [*command, clock, f"--user-data-dir={profile}", copy.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    complaints = [line for line in ended.stderr.splitlines() if "CONSOLE" in line and "GPU stall due to ReadPixels" not in line]
    assert not complaints, complaints
    return ended.stdout
