"""Bytes to text, for the formats that are text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection

from crawler.contracts import Source
from crawler.errors import UnreadableDocument

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - {*b"\t\n\v\f\r\x1b"} | {127})
_BINARY_MAGIC = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\xd0\xcf\x11\xe0",
    b"\x7fELF",
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
)
_MARKUP = re.compile(rb"<\?xml\s|\{\\rtf\d", re.IGNORECASE)
_HTML = re.compile(rb"<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
_BACKTICKS = re.compile("`+")


def _byte_order_mark(content: bytes) -> str | None:
    return next((encoding for mark, encoding in _BOMS if content.startswith(mark)), None)


def is_text(content: bytes) -> bool:
    """Whether the bytes can be text: a byte order mark, or no control characters and no known magic."""
    if _byte_order_mark(content):
        return True
    sample = content[:65536]
    return not content.startswith(_BINARY_MAGIC) and len(sample.translate(None, _CONTROLS)) == len(sample)


def decode(content: bytes) -> tuple[str, tuple[str, ...]]:
    """The text, its lines ended by ``\\n``, and warnings.

    A byte order mark decides; else UTF-8; else Windows-1252, the superset of Latin-1 that the WHATWG
    encoding standard reads for either name.

    Raises:
        UnreadableDocument: It is binary, or not in the encoding that its byte order mark says.
    """
    warnings: tuple[str, ...] = ()
    encoding = _byte_order_mark(content)
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise UnreadableDocument("The text is damaged. Save it as UTF-8 and upload it again.") from error
        text = content.decode("cp1252", errors="replace")
        warnings = ("The text is not UTF-8; it was read as Windows-1252 (Latin-1).",)
    if not is_text(content) or "\0" in text:
        raise UnreadableDocument("The file is not text. Save it as UTF-8 text and upload it again.")
    return text.replace("\r\n", "\n").replace("\r", "\n"), warnings


def named(source: Source, suffixes: Collection[str], media_types: Collection[str] = ()) -> bool:
    """Whether a text's name says that it is of a kind; the media type counts where the name says nothing."""
    known = source.suffix in suffixes or (not source.suffix and source.media_type in media_types)
    return known and is_text(source.content) and not is_markup(source.content)


def is_markup(content: bytes) -> bool:
    """Whether a text begins as HTML, XML or RTF does, whatever its name."""
    return bool(_MARKUP.match(content[:4096].removeprefix(codecs.BOM_UTF8).lstrip())) or is_html(content)


def is_html(content: bytes) -> bool:
    """Whether a text begins as a web page does, after a byte order mark, XML declaration and comments."""
    # No regex: these nest badly in one.
    content = content[:4096].removeprefix(codecs.BOM_UTF8).lstrip()
    for opening, closing in ((b"<?xml", b"?>"), (b"<!--", b"-->")):
        while content.startswith(opening) and closing in content:
            content = content.partition(closing)[2].lstrip()
    return bool(_HTML.match(content))


def fence(text: str, language: str = "") -> str:
    """``text`` as a fenced code block, its fence longer than any run of backticks in it."""
    longest = max(map(len, _BACKTICKS.findall(text)), default=0)
    mark = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{mark}{language}\n{text}{end}{mark}"
