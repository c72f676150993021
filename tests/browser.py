"""A page in a real Chromium without network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(not BROWSER, reason="there is no Chromium here")
PROBE = """<script>addEventListener("load", () => {
  const sizes = [...document.images].map(each => each.naturalWidth * each.naturalHeight * each.clientHeight);
  document.title = "drawn " + sizes.filter(Boolean).length + " of " + sizes.length;
  %s
});</script></body>"""


def opened(page: str, folder: Path, dark: bool = False, then: str = "") -> str:
    """The page's elements once it is loaded, and `then`, JavaScript, has run.

    Nothing stands on its console, and every picture has a size.
    """
    place = folder / "page.html"
    place.write_text(page.replace("</body>", PROBE % then), encoding="utf-8")
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"),
        *("--enable-logging=stderr", "--v=0", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000"),
        *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
        *(f"--user-data-dir={folder / 'profile'}", place.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    count = page.count("<picture>")
    assert f"<title>drawn {count} of {count}</title>" in done.stdout
    assert "CONSOLE" not in done.stderr
    return done.stdout
