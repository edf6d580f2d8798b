"""Make docs/assets/report-desktop.png and -phone.png: the report on published runs, as a browser shows it.

    python scripts/make_screenshots.py docs/assets

The runs are those of scripts/evidence/offline.tar.xz, whose ``result.json`` holds their configurations.  Chromium draws
the page at the width of a desktop and of a phone; it must be installed (Debian: apt install chromium).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import evidence
import yaml

from rlkit.cli import main as rlkit
from rlkit.errors import UserError

ENVS = ("hopper-medium", "hopper-medium-replay")
SHOWN = [f"{agent}_{env}_s{seed}" for env in ENVS for agent in ("bc", "td3bc") for seed in range(3)]
SIZES = {"desktop": (1280, 1450, False), "phone": (390, 1250, True)}  # pixels; whether dark
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def run_folders(into: Path) -> list[str]:
    """Folders of the published runs, with the configurations that their results hold."""
    evidence.unpack("offline", into)
    for name in SHOWN:
        shutil.copytree(into / "offline" / name, into / name)
        config = json.loads((into / name / "result.json").read_text())["config"]
        (into / name / "config.yaml").write_text(yaml.safe_dump(config))
    return SHOWN


def shot(page: Path, out: Path, width: int, height: int, dark: bool) -> None:
    """A picture of the top ``height`` pixels of ``page`` in a frame of ``width``: a window has a least width."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise UserError("no browser, expected Chromium (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        frame = Path(profile) / "frame.html"
        style = f"border:0;width:{width}px;height:{height}px"
        frame.write_text(f'<body style="margin:0"><iframe src="{page.resolve().as_uri()}" style="{style}"></iframe>')
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        options += [f"--window-size={width},{height}", f"--screenshot={out}", frame.as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the pictures")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        names = run_folders(Path(folder))
        os.chdir(folder)  # run folders are named as they were typed
        if rlkit(["report", *names]) != 0:
            raise SystemExit(2)
        for name, (width, height, dark) in SIZES.items():
            shot(Path("report.html"), out / f"report-{name}.png", width, height, dark)
        os.chdir(out)


if __name__ == "__main__":
    main()
