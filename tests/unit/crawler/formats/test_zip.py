"""Archives: members come as files, within limits, and none takes the others along."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import UnreadableDocument
from crawler.formats.zip import Zip, ZipSettings
from tests.support.hostile_files import overlapping
from tests.unit.crawler.samples import SAMPLES, real


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return output.getvalue()


def convert(content: bytes, **settings: int) -> Converted:
    format_ = Zip(ZipSettings.model_validate(settings))
    return format_.convert(Source(filename="papers.zip", content=content))


def names(converted: Converted) -> list[str]:
    return [file.filename for file in converted.attachments]


def test_members_are_files_and_are_listed_with_their_folders() -> None:
    converted = convert(real("archive.zip"))
    assert names(converted) == ["quay.md", "berths.csv", "Travel policy.docx"]
    assert converted.attachments[1].content == b"berth,depth\nnorth,9.5\nsouth,7\n"
    assert converted.markdown == (
        "# papers.zip\n\nFiles in the archive: 3\n\n"
        "- notices/quay.md\n- notices/berths.csv\n- Travel policy.docx"
    )
    assert converted.warnings == ()


def test_names_lead_nowhere() -> None:
    converted = convert(
        archive({"../../etc/passwd": b"1", "/abs/a.txt": b"2", "C:\\b.txt": b"3", "x/..": b"4"})
    )
    assert names(converted) == ["passwd", "a.txt", "b.txt", "member-4"]


def test_links_are_named_and_left_out() -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as packed:
        link = zipfile.ZipInfo("secrets.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
        packed.writestr("a.txt", "a")
    converted = convert(output.getvalue())
    assert names(converted) == ["a.txt"]
    assert converted.warnings == ("Links, and so left out: secrets.txt.",)


def test_members_that_lie_in_each_other_are_not_unpacked() -> None:
    with pytest.raises(UnreadableDocument, match="lie in each other"):
        convert(overlapping(3))


def test_a_broken_member_does_not_take_the_others_along() -> None:
    content = archive({"a.txt": b"a" * 50, "b.txt": b"b" * 50}, zipfile.ZIP_STORED).replace(
        b"a" * 50, b"x" * 50
    )
    converted = convert(content)
    assert names(converted) == ["b.txt"]
    assert converted.warnings == ("Broken or packed in an unknown way, and so left out: a.txt.",)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bounds_are_not_used(method: int) -> None:
    converted = convert(archive({"a.txt": b"a" * 50}, method))
    assert names(converted) == []
    assert "a.txt" in converted.warnings[0]


def test_encrypted_members_are_named_and_an_encrypted_archive_is_refused() -> None:
    half = archive({"a.txt": b"a" * 50, "b.txt": b"b" * 50})
    with zipfile.ZipFile(io.BytesIO(half)) as packed:
        first = packed.infolist()[0]
    assert first.flag_bits == 0
    directory = half.index(b"PK\x01\x02")
    encrypted = bytearray(half)
    encrypted[6] |= 1
    encrypted[directory + 8] |= 1
    converted = convert(bytes(encrypted))
    assert names(converted) == ["b.txt"]
    assert converted.warnings == ("Encrypted, and so left out: a.txt.",)
    second = half.index(b"PK\x01\x02", directory + 4)
    encrypted[second + 8] |= 1
    with pytest.raises(UnreadableDocument, match="without a password"):
        convert(bytes(encrypted))


def test_sizes_are_counted_while_reading_and_not_believed() -> None:
    bomb = archive({"bomb.txt": bytes(200_000), "a.txt": b"a"})
    for place in (bomb.index(b"PK\x03\x04") + 22, bomb.index(b"PK\x01\x02") + 24):
        bomb = bomb[:place] + (10).to_bytes(4, "little") + bomb[place + 4 :]
    assert names(convert(bomb, max_member_bytes=1000)) == ["a.txt"]


def test_what_is_over_a_limit_is_named_and_the_rest_goes_on() -> None:
    files = {"large.txt": bytes(2000), "a.txt": bytes(600), "b.txt": bytes(600), "c.txt": b"c", "d.txt": b"d"}
    converted = convert(archive(files), max_member_bytes=1000, max_total_bytes=1000, max_members=2)
    assert names(converted) == ["a.txt", "c.txt"]
    assert "large.txt, b.txt" in converted.warnings[0]
    assert converted.warnings[1] == "1 files are left out: an archive may have 2."


def test_an_empty_or_cut_off_archive_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="empty"):
        convert(archive({}))
    with pytest.raises(UnreadableDocument, match="not downloaded to its end"):
        convert(real("archive.zip")[:-100])


def test_names_in_utf8_without_the_flag_are_read_as_utf8() -> None:
    content = archive({"Gr??e.txt": b"a"}).replace(b"Gr??e", "Grüe".encode())
    assert names(convert(content)) == ["Grüe.txt"]


@pytest.mark.parametrize("name", ["docx", "pptx", "xlsx", "odt", "odp", "ods", "epub"])
def test_documents_that_are_archives_inside_are_not_taken_for_archives(name: str) -> None:
    assert not Zip(ZipSettings()).accepts(Source(filename="x.zip", content=SAMPLES[name][1]))
