"""Zip and compound files are told apart by the names inside, whatever their own name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.contracts import Source
from crawler.formats import _containers
from tests.unit.crawler.packages import open_document, package, pptx, rows, shape, xlsx
from tests.unit.crawler.samples import compound_file, docx, real

FILES: dict[str, bytes] = {
    "docx": docx(),
    "xlsx": xlsx(rows("a,b")),
    "pptx": pptx(shape("x")),
    "odt": open_document("text", ""),
    "ods": open_document("spreadsheet", ""),
    "odp": open_document("presentation", ""),
    "epub": real("policy.epub"),
    "zip": package({"a.txt": "x"}),
    "doc": real("policy.doc"),
    "xls": real("rates.xls"),
    "ppt": compound_file("Current User", "PowerPoint Document"),
    "msg": compound_file("__nameid_version1.0", "__properties_version1.0"),
    "encrypted": compound_file("EncryptionInfo", "EncryptedPackage"),
}


def kind(content: bytes, filename: str = "file.bin") -> str | None:
    return _containers.kind(Source(filename=filename, content=content))


@pytest.mark.parametrize("name", FILES)
def test_the_content_tells_the_kind(name: str) -> None:
    assert kind(FILES[name]) == name


@pytest.mark.parametrize("name", [name for name in FILES if name not in {"zip", "doc", "xls", "ppt", "msg"}])
def test_a_zip_with_a_document_in_it_is_a_zip(name: str) -> None:
    names: dict[str, str | bytes] = {f"inside/{name}.{name}": FILES[name], "word/document.xml": "x"}
    assert kind(package(names)) == "zip"


def test_an_open_document_whose_type_is_not_the_first_member_is_told_by_its_name() -> None:
    content = package({"content.xml": "<x/>", "META-INF/manifest.xml": "<x/>"})
    assert [kind(content, name) for name in ("a.odt", "a.ods", "a.odp", "a.zip")] == [
        "odt",
        "ods",
        "odp",
        "zip",
    ]


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_part_of_a_file_and_any_damage_to_it_is_answered(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    assert kind(cut) in {None, *FILES}


def test_a_directory_that_leads_back_to_itself_ends() -> None:
    content = bytearray(compound_file("Workbook", *(f"s{number}" for number in range(20))))
    content[512:1024] = (1).to_bytes(4, "little") * 128  # the allocation table: every sector's next is 1
    assert kind(bytes(content)) == "xls"


def test_a_zip_of_very_many_names_is_read_as_far_as_the_first_ones() -> None:
    content = package({f"{number}.txt": "" for number in range(_containers.MAX_NAMES + 10)})
    assert len(_containers.member_names(content)) == _containers.MAX_NAMES
