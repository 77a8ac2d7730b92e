"""Mails: headers, the right text of several, and what is attached."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import UnreadableDocument
from crawler.formats.eml import Eml
from crawler.settings import Settings
from tests.unit.crawler.samples import real


def convert(content: bytes) -> Converted:
    return Eml(Settings()).convert(Source(filename="mail.eml", content=content))


def message(text: str = "Hello.", **headers: str) -> EmailMessage:
    made = EmailMessage()
    for name, value in headers.items():
        made[name] = value
    made.set_content(text)
    return made


def test_headers_are_properties_and_stand_above_the_text() -> None:
    converted = convert(real("mail.eml"))
    assert converted.markdown.startswith(
        "# Quay repairs: what pilots should know\n\n- From: Jörg Müller \\<joerg@harbour.example.org\\>\n"
    )
    assert converted.metadata == {
        "title": "Quay repairs: what pilots should know",
        "author": "Jörg Müller <joerg@harbour.example.org>",
        "created_at": "2024-03-01T09:30:00+00:00",
        "from": "Jörg Müller <joerg@harbour.example.org>",
        "to": "Pilots <pilots@example.org>, Ada Lovelace <ada@example.org>",
        "cc": "archive@example.org",
    }


def test_attachments_and_forwarded_mails_are_files_and_pictures_in_the_text_are_not() -> None:
    converted = convert(real("mail.eml"))
    assert [(file.filename, file.media_type) for file in converted.attachments] == [
        ("berths.csv", "text/csv"),
        ("Travel policy.docx", "application/octet-stream"),
        ("Tide tables.eml", "message/rfc822"),
    ]
    assert converted.attachments[0].content == b"berth,depth\nnorth,9.5\nsouth,7\n"
    assert [image.media_type for image in converted.images] == ["image/png"]
    forwarded = convert(converted.attachments[2].content)
    assert "High water is at 11:40." in forwarded.markdown
    assert [file.filename for file in forwarded.attachments] == ["tides.md"]


def test_of_two_texts_the_plain_one_is_read_and_html_where_there_is_no_other() -> None:
    both = message("Plain words.")
    both.add_alternative("<p>Rich words.</p>", subtype="html")
    assert "Plain words." in convert(both.as_bytes()).markdown
    assert "Rich words." not in convert(both.as_bytes()).markdown
    rich = EmailMessage()
    rich["Subject"] = "S"
    rich.set_content("<h1>Rates</h1><p>Rich <a href='javascript:x()'>words</a>.</p>", subtype="html")
    assert convert(rich.as_bytes()).markdown == "# S\n\n# Rates\n\nRich words."


def test_a_file_inside_the_alternative_that_is_not_read_is_kept() -> None:
    inner = EmailMessage()
    inner.set_content("<p>Rich words.</p>", subtype="html")
    inner.add_attachment(b"a,b\n", "text", "csv", filename="a.csv")
    outer = EmailMessage()
    outer.set_content("Plain words.")
    outer.make_alternative()
    outer.attach(inner)
    converted = convert(outer.as_bytes())
    assert "Rich" not in converted.markdown
    assert [file.filename for file in converted.attachments] == ["a.csv"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\a\\plan.pdf", "plan.pdf"),
        ("in\u202evoice\x07.txt", "invoice.txt"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
        ("..", "attachment-1"),
    ],
)
def test_names_of_attachments_are_names_only(given: str, name: str) -> None:
    mail = message()
    mail.add_attachment(b"1", "application", "octet-stream", filename=given)
    assert [file.filename for file in convert(mail.as_bytes()).attachments] == [name]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b'Content-Type: text/plain; charset="klingon"', "na\u00efve"),
        (b"Content-Type: text/plain", "na\u00efve"),
        (b'From: "\r\nTo: (\r\nDate: never', "na\u00efve"),
        (b"Content-Type: multipart/mixed; boundary=a", "na\u00efve"),
        (b"Subject: =?utf-8?b?!!!?=\r\nContent-Disposition: inline; filename*0=", "na\u00efve"),
    ],
)
def test_malformed_mails_are_read_as_far_as_they_go(head: bytes, expected: str) -> None:
    content = b"Subject: Words\r\n" + head + b"\r\n\r\n" + "na\u00efve".encode("latin-1")
    converted = convert(content)
    texts = [converted.markdown, *(file.content.decode("latin-1") for file in converted.attachments)]
    assert any(expected in text for text in texts)


def test_an_encrypted_mail_says_so() -> None:
    content = (
        b"Subject: S\r\nContent-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\nMIAG"
    )
    with pytest.raises(UnreadableDocument, match="encrypted"):
        convert(content)


def test_an_empty_mail_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="empty"):
        convert(b"From: a@example.org\r\n\r\n")


def test_headers_cannot_make_links_or_headings_of_their_own() -> None:
    converted = convert(b"Subject: [press](javascript:x) <b>\r\n # c\r\n\r\nBody")
    assert converted.markdown == "# \\[press\\](javascript:x) \\<b\\> # c\n\nBody"


@pytest.mark.parametrize("content", [b"just words\n", b"{}", b"\x00\x01: x\n\n"])
def test_a_name_alone_makes_no_mail(content: bytes) -> None:
    assert not Eml(Settings()).accepts(Source(filename="a.eml", content=content))
