"""Links that would run something when clicked, made harmless wherever a text may become a page.

Clients render passages: in an answer, as a citation. A ``javascript:`` link in one would run there. Browsers
and Markdown read such an address in many spellings, so that what is recognised here is what they make of it
(URL standard, 4.4; HTML standard, 13.2.5; CommonMark 0.31, 6.2 to 6.6).
"""

from __future__ import annotations

import re

_DECIMAL, _HEXADECIMAL = r"&#0*+(?:{})(?![0-9]);?", r"&#x0*+(?:{})(?![0-9a-f]);?"
_BLANK = (
    r"(?:[\x00-\x20\x7f]|&(?:tab|newline);"
    rf"|{_DECIMAL.format('9|10|13|32')}|{_HEXADECIMAL.format('9|a|d|20')})*+"
)
"""What browsers leave out before and in a scheme, bare or as a reference."""
_COLON = rf"(?:\\?:|&colon;|{_DECIMAL.format(58)}|{_HEXADECIMAL.format('3a')})"
_BEFORE = r"[<=]|\][(:]"
"""What stands before an address: of an autolink, an attribute, a Markdown link, a reference."""


def _letter(letter: str) -> str:
    codes = (ord(letter), ord(letter.upper()))
    decimal, hexadecimal = "|".join(map(str, codes)), "|".join(f"{code:x}" for code in codes)
    return f"(?:{letter}|{_DECIMAL.format(decimal)}|{_HEXADECIMAL.format(hexadecimal)})"


def _scheme(name: str) -> str:
    return _BLANK.join(map(_letter, name)) + _BLANK + _COLON


_SCHEMES = (
    *map(_scheme, ("javascript", "vbscript", "livescript")),
    _scheme("data") + r"\s*+[\w.+-]*+[/;,]",  # a word before a colon, too
)
_ACTIVE = re.compile(rf"(?:{_BEFORE}){_BLANK}(?:[<\"']{_BLANK})?(?={'|'.join(_SCHEMES)})", re.IGNORECASE)


def without_active_links(text: str) -> str:
    """The text with the first character of every active address replaced by ``#``, which makes it a place in
    the page itself. The length stays: offsets into the text hold."""
    parts: list[str] = []
    done = 0
    for match in _ACTIVE.finditer(text):
        parts += [text[done : match.end()], "#"]
        done = match.end() + 1
    return "".join([*parts, text[done:]]) if parts else text
