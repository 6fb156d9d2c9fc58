"""Files that people bring: what is read of them, and what is refused with a reason."""

from __future__ import annotations

import base64
import importlib
import zipfile
import zlib
from importlib.util import find_spec

import pytest

from xlgen_hf.demo import documents
from xlgen_hf.demo.documents import read_document, readable_endings
from xlgen_hf.errors import DataError, MissingExtraError


def pdf(*texts: str) -> bytes:
    """A PDF with a page for each text."""
    parts = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    pages = []
    for text in texts:
        drawn = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode() if text else b""
        parts.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
        parts.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(parts)
        )
        pages.append(b"%d 0 R" % len(parts))
    parts[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(pages), len(pages))
    content = b"%PDF-1.4\n"
    places = []
    for number, part in enumerate(parts, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(parts) + 1
    end = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, len(content))
    return content + b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table) + end


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Leipä ja 面包\r\n".encode(), "Leipä ja 面包"),
        ("\ufeffLeipä".encode(), "Leipä"),
        ("Leipä".encode("utf-16"), "Leipä"),
    ],
)
def test_plain_text(tmp_path, content, text):
    (tmp_path / "a.TXT").write_bytes(content)
    found = read_document(tmp_path / "a.TXT", 1000)
    assert (found.text, found.is_whole) == (text, True)


def test_pdf(tmp_path):
    pytest.importorskip("pypdf", reason="the extra `documents` is not installed")
    (tmp_path / "a.pdf").write_bytes(pdf("Rye bread", "and oats"))
    assert read_document(tmp_path / "a.pdf", 1000).text.split() == ["Rye", "bread", "and", "oats"]
    found = read_document(tmp_path / "a.pdf", 5)
    assert (found.text, found.is_whole) == ("Rye b", False)


def test_docx(tmp_path):
    docx = pytest.importorskip("docx", reason="the extra `documents` is not installed")
    document = docx.Document()
    document.add_paragraph("Rye bread")
    cells = document.add_table(1, 2).rows[0].cells
    cells[0].text, cells[1].text = "and", "oats"
    document.save(str(tmp_path / "a.docx"))
    assert read_document(tmp_path / "a.docx", 1000).text.split() == ["Rye", "bread", "and", "oats"]


def test_merged_cells_of_docx_are_read_once(tmp_path):
    docx = pytest.importorskip("docx", reason="the extra `documents` is not installed")
    document = docx.Document()
    table = document.add_table(4, 3)
    for row in range(4):
        for column in range(3):
            table.cell(row, column).text = f"{row}{column}"
    for first, last, text in (((0, 0), (0, 2), "wide"), ((1, 0), (3, 0), "high"), ((1, 1), (2, 2), "large")):
        table.cell(*first).merge(table.cell(*last)).text = text
    document.save(str(tmp_path / "a.docx"))
    assert read_document(tmp_path / "a.docx", 1000).text.split() == ["wide", "high", "large", "31", "32"]


def test_all_paragraphs_of_docx_are_read_once(tmp_path):
    """Tables in tables, content controls (also in a line), text boxes with a copy for old programs, links."""
    docx = pytest.importorskip("docx", reason="the extra `documents` is not installed")
    parse = importlib.import_module("docx.oxml.parser").parse_xml
    spaces = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    )
    document = docx.Document()
    document.add_table(1, 1).cell(0, 0).add_table(1, 1).cell(0, 0).text = "nested"
    box = "<w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent>"
    for content in (
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>title</w:t></w:r></w:p></w:sdtContent></w:sdt>",
        "<w:p><w:r><w:t>one</w:t><w:tab/></w:r><w:sdt><w:sdtContent><w:r><w:t>field</w:t></w:r></w:sdtContent></w:sdt>"
        "<w:hyperlink><w:r><w:t> link</w:t></w:r></w:hyperlink>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:moveFrom><w:r><w:t>from here</w:t></w:r></w:moveFrom></w:p>",
        f"<w:p><w:r><mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>"
        "</mc:AlternateContent></w:r></w:p>",
    ):
        element = parse(f"<w:body {spaces}>{content}</w:body>")[0]
        document.element.body.insert(len(document.element.body) - 1, element)
    document.save(str(tmp_path / "a.docx"))
    found = read_document(tmp_path / "a.docx", 1000).text
    assert found.split() == ["nested", "title", "one", "field", "link", "box"] and "one\tfield link" in found


@pytest.mark.parametrize("first", ["", "Title"])
def test_empty_paragraphs_do_not_end_a_document(tmp_path, first):
    docx = pytest.importorskip("docx", reason="the extra `documents` is not installed")
    document = docx.Document()
    for text in (first, *[" "] * 300, "Rye bread"):
        document.add_paragraph(text)
    document.save(str(tmp_path / "a.docx"))
    whole = read_document(tmp_path / "a.docx", 1000)
    assert (whole.text.split(), whole.is_whole) == ([*first.split(), "Rye", "bread"], True)
    cut = read_document(tmp_path / "a.docx", 6)
    assert (cut.text.split(), cut.is_whole) == ([first or "Rye br"] if first else ["Rye", "br"], False)


def bomb(path):
    """A Word file of some kilobytes with much of one letter."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as part:
        for _ in range(101):
            part.write(b"a" * 1_000_000)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.exe", b"MZ", r"ends in '\.exe'; open one of \.txt, \.pdf, \.docx"),
        ("a", b"text", "ends in 'nothing'"),
        ("a.txt", b"", "has no text"),
        ("a.txt", b"\xff\x00\x80", "not text in UTF-8; save it as UTF-8"),
        ("a.txt", b"a\x00b", "holds zero bytes"),
        ("a.pdf", pdf("Rye bread")[:200], r"cannot be read as \.pdf \(\w+\); is it complete"),
        ("a.pdf", b"no pdf", r"cannot be read as \.pdf"),
        ("a.pdf", pdf(""), "no text, only pictures of it; run text recognition"),
        ("a.docx", b"PK\x03\x04", r"cannot be read as \.docx \(BadZipFile\)"),
        ("a.docx", bomb, "Unpacked the file has more than 100 MB"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, message):
    pytest.importorskip("pypdf", reason="the extra `documents` is not installed")
    pytest.importorskip("docx", reason="the extra `documents` is not installed")
    if callable(content):
        content(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_document(tmp_path / name, 1000)


def test_a_file_with_a_password_is_refused(tmp_path):
    pypdf = pytest.importorskip("pypdf", reason="the extra `documents` is not installed")
    (tmp_path / "a.pdf").write_bytes(pdf("Rye bread"))
    writer = pypdf.PdfWriter(clone_from=tmp_path / "a.pdf")
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    with pytest.raises(DataError, match="needs a password"):
        read_document(tmp_path / "a.pdf", 1000)


# The PDF of "Rye bread" as pypdf encrypts it with AES-128, for everybody to read: packed, in base 85.
ENCRYPTED = (
    "c-oCqJ7^R^7)G?3-oiqi=D^0xdv*uTgFNntXh^s-L6H=5J2T0}%Wl}63rQMV5$wdq!Y*KAqlBQ9pkN~wscf|n!B$e(IJ<XA4$i`TvHv&"
    "U|NXC-+R|L>I+<di_U-$ZBS0XAS$6}}>j2%^-LeqPYOnj*8bC{W%@&XbLK`$1z^0}o(g}x(2hgpaDd2s`N<Lf#Xf_+99+ELv_D|O`P;L"
    "Wt7zr&{)6+BAPSC>PmKei0yp>|=1F?X7$ZXpp8{|nyvQ%t^)!`3;;w0(eGm6j0;@`IEnqP;Km+OVkt=<GvZ*QF2U%mYCaQWV!AHGi>FI"
    "_!&{rTe0uMZ!*I)7Yy_lO+m<12Ufpa1%>*M558)63Siqr;8&>+MU=k|!^IzbWI4q(%|NM8##60CfgkUzsIH0GiQ-t@20nw!dwCFVSOp%"
    "Q2M|$V1`fXH)^9ap)lARB<IEs%U6HukURRQOE1l=-dFb2<t*hr{joO%UBYrC^4+7Fn2~97Za|XX52WXS?r`WoOD&pEls4+RBP!(1E6JC"
    "XHHW|jg(js9Yq)`rXp?))~=fnhiTk(+zQKWBx22p<QNBAI_ESdI1Vbat!hdgZ$^L91HazfE_VQ$%aX+{o0g;nh^CvJ6?#^v98EL0Znof"
    "1pfvJR<E&*nxpe@;2;kETN+Fnl4xVBpjHg;j&oId+Fhbb`Mg^I`n4Hw(Yz*_c?)7b6&9T$lvmrgy&a!YwhWq*ET-ft<A}CdYbaBGC5)o"
    "D!OO*)0u_1AydE<X5;j}c<B;VcgP@bHH!t2~ujfpq~wOVtr1^xnkr5*4"
)


def test_a_file_that_is_encrypted_for_everybody(tmp_path):
    pytest.importorskip("pypdf", reason="the extra `documents` is not installed")
    (tmp_path / "a.pdf").write_bytes(zlib.decompress(base64.b85decode(ENCRYPTED)))
    if find_spec("cryptography"):
        assert read_document(tmp_path / "a.pdf", 1000).text == "Rye bread"
    else:
        with pytest.raises(DataError, match=r"encrypted, and `cryptography`, which decrypts it, is not installed"):
            read_document(tmp_path / "a.pdf", 1000)


def test_a_reader_that_takes_too_much_is_ended(tmp_path, monkeypatch):
    """Whatever a file makes its reader do: the worker here does it by itself."""
    (tmp_path / "a.txt").write_text("a")
    for program, message in (
        ("import time; time.sleep(60)", "takes too long to read"),
        ("import os; os.kill(os.getpid(), 9)", "takes too much time or memory"),
    ):
        (tmp_path / "worker.py").write_text(program)
        monkeypatch.setattr(documents, "WORKER", tmp_path / "worker.py")
        monkeypatch.setattr(documents, "LONGEST_WAIT", 0.5)
        with pytest.raises(DataError, match=message):
            read_document(tmp_path / "a.txt", 1000)


def test_readers_are_optional(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "find_spec", lambda name: None)
    assert readable_endings() == [".txt"]
    with pytest.raises(MissingExtraError, match=r"`pypdf` is not installed.*xlgen-hf\[documents\]"):
        read_document(tmp_path / "a.pdf", 1000)
