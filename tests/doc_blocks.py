"""Blocks of code in the README and in the documentation, for the tests and for `benchmarks/run_docs.sh`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(
    r"(?P<mark>^[ ]*<!--[^\n]*-->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w+)?(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')


class Block(NamedTuple):
    """A block of code.

    Attributes:
        page: the file that it is in, relative to the repository.
        line: number of its first line.
        language: such as `bash`.
        title: name of the file that it shows; empty for none.
        runs: whether it is marked to be run.
        code: its lines, without indentation.
    """

    page: str
    line: int
    language: str
    title: str
    runs: bool
    code: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The README and all pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of code of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [_block(page, text, match) for match in _BLOCK.finditer(text)]


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    indent = match["indent"]
    lines = (line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
    title = _TITLE.search(match["info"])
    return Block(
        str(page.relative_to(ROOT)),
        text.count("\n", 0, match.start("code")) + 1,
        match["language"] or "",
        title[1] if title else "",
        (match["mark"] or "").strip() == "<!-- run -->",
        "".join(lines),
    )


def main(folder: str, *names: str) -> None:
    """Write the blocks of pages that are marked to be run into a folder, named so that they sort in their order."""
    suffixes = {"bash": "sh", "python": "py"}
    for name in names:
        for block in blocks_of(ROOT / name):
            if block.runs:
                path = Path(folder) / f"{Path(name).stem}-{block.line:04}.{suffixes[block.language]}"
                path.write_text(block.code, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
