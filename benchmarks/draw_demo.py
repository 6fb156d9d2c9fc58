"""The picture of `xlgen demo` in the documentation, by Chromium, with the extra `browser`.

`CHROMIUM` names another browser than that on the PATH.

python benchmarks/draw_demo.py --model index --model rcl --output docs/images/demo.png
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

TEXT = "Baking bread with rye and oats: recipes from Finland"
SIZE = {"width": 1280, "height": 900}


def draw(address: str, output: Path, models: int) -> None:
    """Ask the page about a text, and keep what it then looks like."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(address)
        page.get_by_label("Text", exact=True).fill(TEXT)
        page.get_by_role("button", name="Predict").click()
        page.locator(".xl-answer").nth(models - 1).wait_for()
        page.mouse.move(0, 0)
        page.screenshot(path=output, full_page=True)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="once or more")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    models = [part for one in arguments.model for part in ("--model", one)]
    with tempfile.TemporaryDirectory() as folder:
        corrections = str(Path(folder) / "corrections.jsonl")  # a page with buttons; nothing is written
        command = [sys.executable, "-m", "xlgen_hf", "demo", *models, "--corrections", corrections, "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as page:
            try:
                said = page.stderr.readline()
                found = re.search(r"http://\S+", said)
                assert found, said + page.stderr.read()
                draw(found[0], arguments.output, len(arguments.model))
            finally:
                page.terminate()


if __name__ == "__main__":
    main()
