"""Three hundred files of many kinds: good ones with a word that each has alone, twins, and bad ones."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.proxy import ROOT
from tests.unit.crawler.samples import encrypted_pdf, paragraph, pdf

FIXTURES = ROOT / "tests" / "fixtures" / "formats"
KNOWN = "Lisbon"
"""A word in each of the fixtures, for which each copy has its own."""
EACH = 16
TWINS = 20


@dataclass(frozen=True)
class File:
    name: str
    content: bytes
    word: str | None
    """That finds it; None = it must fail, with a reason."""


def word(number: int) -> str:
    return f"city{number:04d}place"


def packed(name: str, own: str) -> bytes:
    """An office file or an e-book with its own word in its XML."""
    output = io.BytesIO()
    with zipfile.ZipFile(FIXTURES / name) as given, zipfile.ZipFile(output, "w") as made:
        for member in given.infolist():
            content = given.read(member).replace(KNOWN.encode(), own.encode())
            made.writestr(member, content, member.compress_type)
    return output.getvalue()


def written(name: str, own: str) -> bytes:
    return (FIXTURES / name).read_bytes().replace(KNOWN.encode(), own.encode())


def notebook(own: str) -> bytes:
    cells = [{"cell_type": "markdown", "metadata": {}, "source": [f"# Trip to {own}\n", "By train."]}]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}).encode()


def mail(own: str) -> bytes:
    return (
        f"From: ada@example.com\r\nTo: bob@example.com\r\nSubject: Trip to {own}\r\n"
        f"Date: Fri, 01 Mar 2024 08:00:00 +0000\r\nContent-Type: text/plain\r\n\r\nWe go to {own}.\r\n"
    ).encode()


KINDS: dict[str, Callable[[str], bytes]] = {
    "md": lambda own: f"# Travel\n\nWe go to {own} by train.".encode(),
    "txt": lambda own: f"We go to {own} by train.".encode(),
    "csv": lambda own: f"City,Rate\n{own},28\nBerlin,30\n".encode(),
    "json": lambda own: json.dumps({"trips": [{"city": own, "days": 2}]}).encode(),
    "jsonl": lambda own: f'{{"city": "{own}", "days": 2}}\n{{"city": "Berlin", "days": 3}}\n'.encode(),
    "xml": lambda own: f"<trips><trip><city>{own}</city></trip></trips>".encode(),
    "py": lambda own: f'"""Trips."""\n\n\ndef go():\n    return "{own}"\n'.encode(),
    "ipynb": notebook,
    "eml": mail,
    "html": lambda own: written("policy.html", own),
    "rtf": lambda own: written("policy.rtf", own),
    "pdf": lambda own: pdf([[(11, 72, 700, f"We go to {own} by train.")]]),
    "docx": lambda own: packed("policy.docx", own),
    "pptx": lambda own: packed("policy.pptx", own),
    "odt": lambda own: packed("policy.odt", own),
    "epub": lambda own: packed("policy.epub", own),
    "xlsx": lambda own: packed("rates.xlsx", own),
    "ods": lambda own: packed("rates.ods", own),
}


def bad() -> list[File]:
    """Files that cannot be read: broken, protected, of no kind, or made to break the reader."""
    whole = (FIXTURES / "policy.docx").read_bytes()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("[Content_Types].xml", "<Types/>")
        made.writestr("word/document.xml", paragraph("a" * 2**20) * 400)
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    laughs = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><x>&e11;</x>'
    contents = {
        "half.docx": whole[: len(whole) // 2],
        "half.pdf": b"%PDF-1.7\n" + zlib.compress(b"half"),
        "secret.pdf": encrypted_pdf(),
        "old.doc": (FIXTURES / "policy.doc").read_bytes(),
        "program.pdf": b"\x7fELF" + bytes(200),
        "program.exe": b"MZ" + bytes(200),
        "bomb.docx": bomb.getvalue(),
        "laughs.xml": laughs.encode(),
        "blank.txt": b" \n \n",
    }
    return [File(name, content, None) for name, content in contents.items()]


def library() -> list[File]:
    """All of them; the twins last."""
    good = []
    for number in range(EACH):
        for place, (suffix, make) in enumerate(KINDS.items()):
            own = word(number * len(KINDS) + place)
            good.append(File(f"{number}-{suffix}.{suffix}", make(own), own))
    twins = [File(f"twin-{file.name}", file.content, file.word) for file in good[:TWINS]]
    swollen = pdf([[(11, 72, 700, f"Behind {word(9999)} is much")]], bomb_bytes=400 * 2**20)
    return [*bad(), File("swollen.pdf", swollen, word(9999)), *good, *twins]


def folder(path: Path) -> list[File]:
    """The library as files of a folder."""
    files = library()
    for file in files:
        (path / file.name).write_bytes(file.content)
    return files
