"""A program that prints the text of a file as JSON; of its own, as files may be made to take all memory or time.

Arguments: the file, and the most characters that are wanted. It prints `{"text", "more"}`, where `more` says that the
file has further text, or `{"problem"}`.
"""

from __future__ import annotations

import codecs
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

MOST_MEMORY = 1 << 30  # bytes of the process
MOST_SECONDS = 20  # of computing
MOST_UNPACKED = 100_000_000  # bytes of all parts of a .docx
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class UnreadableError(Exception):
    """Says what is wrong with a file, and what to do."""


_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"


def read_plain(path: Path) -> Iterator[str]:
    """The text of a text file."""
    content = path.read_bytes()
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as err:
        raise UnreadableError("The file is not text in UTF-8; save it as UTF-8.") from err
    if "\0" in text:
        raise UnreadableError("The file holds zero bytes, so it is not text; open a .txt, .pdf or .docx file.")
    yield text


def read_pdf(path: Path) -> Iterator[str]:
    """The text of a PDF, page by page."""
    from pypdf.errors import DependencyError

    try:
        yield from read_pages(path)
    except DependencyError as err:  # many a PDF that anybody may read is encrypted, so that nobody changes it
        raise UnreadableError(
            "The PDF is encrypted, and `cryptography`, which decrypts it, is not installed here; save it without"
            " encryption, or install xlgen-hf[documents] again."
        ) from err


def read_pages(path: Path) -> Iterator[str]:
    """The text of each page of a PDF."""
    import pypdf

    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableError("The PDF needs a password; save it without one.")
    is_empty = True
    for page in reader.pages:
        text = page.extract_text()
        is_empty = is_empty and not text.strip()
        yield text + "\n"
    if is_empty:
        raise UnreadableError("The PDF has no text, only pictures of it; run text recognition (OCR) on it first.")


def read_docx(path: Path) -> Iterator[str]:
    """The text of a Word file, paragraph by paragraph, those of tables, text boxes and content controls too."""
    import docx
    from docx.oxml.ns import qn

    with zipfile.ZipFile(path) as archive:  # no part is larger than it declares: the reader of zips stops there
        if sum(part.file_size for part in archive.infolist()) > MOST_UNPACKED:
            raise UnreadableError(f"Unpacked the file has more than {MOST_UNPACKED // 1_000_000} MB; it is not read.")
    ends = (qn("w:p"), qn("w:moveFrom"))  # the latter holds text that has moved to elsewhere, where it is once more
    for paragraph in docx.Document(str(path)).element.body.iter(qn("w:p")):
        if next(paragraph.iterancestors(_FALLBACK), None) is not None:
            continue  # the same text box once more, for old programs
        around = ((run, next(run.iterancestors(*ends))) for run in paragraph.iter(qn("w:r")))
        yield "".join(run.text for run, outer in around if outer is paragraph) + "\n"


READERS: dict[str, Callable[[Path], Iterator[str]]] = {".txt": read_plain, ".pdf": read_pdf, ".docx": read_docx}


def read(path: Path, most: int) -> dict[str, object]:
    """The first characters of a file's text, and whether it has more."""
    parts: list[str] = []
    size = 0
    for part in READERS[path.suffix.lower()](path):
        parts.append(part)
        size += len(part.strip())  # the text has at least as many characters
        if size > most:
            break
    text = "".join(parts).strip().encode(errors="replace").decode()  # a file may hold halves of characters
    return {"text": text[:most], "more": len(text) > most}


def limit() -> None:
    """Let the system end this process where it takes too much."""
    try:
        import resource
    except ImportError:  # Windows; the time is limited by the caller there
        return
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))


def main() -> None:
    """Read the file, and print what it holds."""
    path, most = Path(sys.argv[1]), int(sys.argv[2])
    limit()
    try:
        answer = read(path, most)
    except UnreadableError as err:
        answer = {"problem": str(err)}
    except MemoryError:
        answer = {"problem": "The file takes too much memory; save its text as a .txt file."}
    except Exception as err:
        answer = {
            "problem": f"The file cannot be read as {path.suffix.lower()} ({type(err).__name__}); is it complete?"
        }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
