"""Outlook's mails: their text in each of its forms, and what is attached."""

from __future__ import annotations

from typing import Any

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import UnreadableDocument
from crawler.formats.eml import Eml
from crawler.formats.msg import Msg
from crawler.settings import Settings
from tests.fixtures.formats import outlook
from tests.fixtures.formats.compound_file import compound_file
from tests.unit.crawler.samples import real

HELLO_RTF = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
)
"""The example of [MS-OXRTFCP] 3.1.1.1."""


def convert(content: bytes) -> Converted:
    return Msg(Settings()).convert(Source(filename="mail.msg", content=content))


def mail(**fields: Any) -> bytes:
    properties = {getattr(outlook, name): value for name, value in fields.items()}
    return compound_file(outlook.mail(properties))


def test_headers_are_properties_and_html_is_read_where_there_is_no_plain_text() -> None:
    converted = convert(real("mail.msg"))
    assert "the **north quay** is closed." in converted.markdown
    assert converted.metadata == {
        "title": "Quay repairs: what pilots should know",
        "author": "Jörg Müller <joerg@harbour.example.org>",
        "created_at": "2024-03-01T09:30:00+00:00",
        "from": "Jörg Müller <joerg@harbour.example.org>",
        "to": "Pilots; Ada Lovelace",
        "cc": "archive@example.org",
    }


def test_a_mail_inside_is_a_file_that_is_read_as_a_mail() -> None:
    converted = convert(real("mail.msg"))
    assert [file.filename for file in converted.attachments] == [
        "berths.csv",
        "policy.docx",
        "Tide tables.eml",
    ]
    assert converted.attachments[1].content.startswith(b"PK\x03\x04")
    inside = converted.attachments[2]
    forwarded = Eml(Settings()).convert(Source(filename=inside.filename, content=inside.content))
    assert forwarded.metadata["title"] == "Tide tables"
    assert "High water is at 11:40." in forwarded.markdown
    assert [(file.filename, file.content) for file in forwarded.attachments] == [
        ("tides.md", b"# Tides\n\nSpring tide on 10 March.\n")
    ]


@pytest.mark.parametrize(
    "sender", ['"', "(a", "<<<>", "/O=EXCH/CN=RECIPIENTS/CN=ada", "a\r\nBcc: b", "J\u00f6rg"]
)
def test_mails_in_mails_are_kept_whoever_sent_them(sender: str) -> None:
    deepest = outlook.mail({outlook.SUBJECT: "Deepest", outlook.BODY: "Low water."}, inside=True)
    middle = outlook.mail(
        {outlook.SUBJECT: "Middle", outlook.SENDER: sender, outlook.HTML: b"<p>High water.</p>"},
        [
            outlook.forwarded("x.msg", deepest),
            outlook.attachment("a.bin", b"1", "no media\ntype"),
        ],
        inside=True,
    )
    whole = outlook.mail({outlook.SUBJECT: "Outer"}, [outlook.forwarded("y.msg", middle)])
    [file] = convert(compound_file(whole)).attachments
    second = Eml(Settings()).convert(Source(filename=file.filename, content=file.content))
    assert second.metadata["title"] == "Middle"
    assert "High water." in second.markdown
    assert [inside.filename for inside in second.attachments] == ["Deepest.eml", "a.bin"]
    third = Eml(Settings()).convert(Source(filename="x.eml", content=second.attachments[0].content))
    assert third.markdown == "# Deepest\n\nLow water."


def test_the_plain_text_comes_first_and_compressed_rich_text_last() -> None:
    assert "plain" in convert(mail(SUBJECT="S", BODY="plain", HTML=b"<p>rich</p>")).markdown
    assert "hello world" in convert(mail(SUBJECT="S", RTF=HELLO_RTF)).markdown


def test_a_long_text_lies_in_sectors_of_its_own() -> None:
    text = "Every word of a long mail is kept. " * 500
    assert convert(mail(BODY=text)).markdown == text.strip()


@pytest.mark.parametrize("size", [200, 600, 3000, 9000])
def test_a_mail_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(UnreadableDocument, match="upload"):
        convert(real("mail.msg")[:size])


def test_an_empty_mail_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="empty"):
        convert(mail())


def test_an_outlook_mail_is_known_by_its_content() -> None:
    assert Msg(Settings()).accepts(Source(filename="x", content=real("mail.msg")))
    assert not Msg(Settings()).accepts(Source(filename="x.msg", content=real("rates.xls")))
