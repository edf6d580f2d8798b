"""Pictures of a report in a browser, for docs/report.md:  python scripts/make_screenshots.py report.html docs/assets

Chromium draws the page at the width of a desktop and of a phone; it must be installed (Debian: apt install chromium).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from rlkit.errors import UserError

SIZES = {"desktop": (1280, 1500), "phone": (390, 1200)}  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def shot(page: Path, out: Path, width: int, height: int, dark: bool = False) -> None:
    """A picture of the top ``height`` pixels of ``page`` at ``width``: phones are drawn in a frame of that width."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise UserError("no browser, expected Chromium (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        frame = Path(profile) / "frame.html"  # a window has a least width of its own, a frame has none
        style = f"border:0;width:{width}px;height:{height}px"
        frame.write_text(f'<body style="margin:0"><iframe src="{page.resolve().as_uri()}" style="{style}"></iframe>')
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        options += ["--blink-settings=preferredColorScheme=0"] if dark else []
        options += [f"--window-size={width},{height}", f"--screenshot={out.resolve()}", frame.as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path, help="a folder: report-desktop.png, report-phone.png")
    parser.add_argument("--dark", action="store_true", help="with the dark colours")
    args = parser.parse_args()
    for name, (width, height) in SIZES.items():
        shot(args.page, args.out / f"report-{name}{'-dark' if args.dark else ''}.png", width, height, args.dark)


if __name__ == "__main__":
    main()
