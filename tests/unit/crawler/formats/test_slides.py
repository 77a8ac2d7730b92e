"""Presentations: pptx and odp."""

from __future__ import annotations

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import UnreadableDocument
from crawler.formats.odp import Odp
from crawler.formats.pptx import Pptx
from crawler.settings import Settings
from tests.unit.crawler.packages import open_document, pptx, relationships, shape
from tests.unit.crawler.samples import compound_file, real

CHART = (
    '<p:graphicFrame><a:graphic><a:graphicData><c:chart xmlns:c="http://schemas.openxmlformats.org/drawingml/'
    '2006/chart" r:id="c1"/></a:graphicData></a:graphic></p:graphicFrame>'
)
CHART_PART = """<c:chartSpace xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"
 xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><c:chart>
 <c:title><c:tx><c:rich><a:p><a:r><a:t>Trips by city</a:t></a:r></a:p></c:rich></c:tx></c:title>
 <c:plotArea><c:barChart><c:ser><c:tx><c:strRef><c:strCache><c:pt idx="0"><c:v>2024</c:v></c:pt></c:strCache>
 </c:strRef></c:tx><c:cat><c:strRef><c:strCache><c:pt idx="0"><c:v>Berlin</c:v></c:pt><c:pt idx="1">
 <c:v>Lisbon</c:v></c:pt></c:strCache></c:strRef></c:cat>
 <c:val><c:numRef><c:numCache><c:pt idx="0"><c:v>4</c:v>
 </c:pt><c:pt idx="1"><c:v>7</c:v></c:pt></c:numCache></c:numRef></c:val></c:ser></c:barChart></c:plotArea>
 </c:chart></c:chartSpace>"""


def converted(content: bytes, *, with_images: bool = False) -> Converted:
    source = Source(filename="talk.pptx", content=content, with_images=with_images)
    return Pptx(Settings()).convert(source)


def item(text: str, style: str) -> str:
    return f"<a:pPr>{style}</a:pPr><a:r><a:t>{text}</a:t></a:r>"


@pytest.mark.parametrize("name", ["policy.pptx", "policy.odp"])
def test_slides_are_pages_with_their_titles_as_headings_and_their_notes(name: str) -> None:
    format_ = Pptx(Settings()) if name.endswith("pptx") else Odp(Settings())
    result = format_.convert(Source(filename=name, content=real(name)))
    firsts = [result.markdown[page.start :].splitlines()[0] for page in result.pages]
    assert firsts == ["# Travel policy", "## Rates", "## Claims"]
    assert "Notes: Remind them of the desk's hours." in result.markdown
    counts = {key: result.metadata[key] for key in ("slides", "page_count", "table_count", "image_count")}
    assert counts == {"slides": 3, "page_count": 3, "table_count": 2, "image_count": 1}


@pytest.mark.parametrize("name", ["policy.pptx", "policy.odp"])
def test_pictures_come_with_their_places_where_they_are_asked_for(name: str) -> None:
    format_ = Pptx(Settings()) if name.endswith("pptx") else Odp(Settings())
    source = Source(filename=name, content=real(name))
    result = format_.convert(source.model_copy(update={"with_images": True}))
    (image,) = result.images
    assert image.content.startswith(b"\x89PNG")
    assert result.markdown[image.offset :].lstrip().startswith("A red train")
    assert format_.convert(source).images == ()


def test_the_title_comes_first_wherever_its_shape_stands() -> None:
    slide = shape("Below the title") + shape("Prices", placeholder="title") + shape("3", placeholder="sldNum")
    assert converted(pptx(slide)).markdown == "# Prices\n\nBelow the title"


def test_paragraphs_of_a_body_are_items_and_keep_their_level_and_number() -> None:
    body = shape(
        "first",
        item("inside", "").replace("<a:pPr>", '<a:pPr lvl="1">'),
        item("one", "<a:buAutoNum/>"),
        item("two", "<a:buAutoNum/>"),
        item("no item", "<a:buNone/>"),
        placeholder="body",
    )
    assert converted(pptx(body)).markdown == "- first\n  - inside\n1. one\n2. two\n\nno item"


def test_shapes_in_groups_are_read_in_their_place() -> None:
    group = f"<p:grpSp>{shape('two')}<p:grpSp>{shape('three')}</p:grpSp></p:grpSp>"
    assert converted(pptx(shape("one") + group + shape("four"))).markdown == "one\n\ntwo\n\nthree\n\nfour"


def test_the_numbers_of_a_chart_are_a_table() -> None:
    content = pptx(
        CHART,
        known=relationships(c1="chart ../charts/chart1.xml"),
        parts={"ppt/charts/chart1.xml": CHART_PART},
    )
    assert converted(content).markdown == (
        "Trips by city\n\n|  | 2024 |\n| --- | --- |\n| Berlin | 4 |\n| Lisbon | 7 |"
    )


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("https://example.com/a_(b)", "[desk](https://example.com/a_%28b%29)"),
        ("javascript:steal()", "desk"),
        ("data:text/html,x", "desk"),
    ],
)
def test_only_links_that_do_nothing_by_themselves_are_kept(target: str, shown: str) -> None:
    run = '<a:r><a:rPr><a:hlinkClick r:id="h1"/></a:rPr><a:t>desk</a:t></a:r>'
    content = pptx(shape(run), known=relationships(h1=f"hyperlink {target}"))
    assert converted(content).markdown == shown


def test_a_picture_outside_the_presentation_is_not_looked_for() -> None:
    named = '<p:nvPicPr><p:cNvPr descr="Quay"/></p:nvPicPr>'
    picture = f'<p:pic>{named}<p:blipFill><a:blip r:embed="i1"/></p:blipFill></p:pic>'
    content = pptx(picture, known=relationships(i1="image file:///etc/hostname"))
    result = converted(content, with_images=True)
    assert (result.markdown, result.images) == ("Quay", ())


def test_slides_without_text_have_pages_at_the_end_of_the_text() -> None:
    result = converted(pptx(shape("only"), "", ""))
    assert [page.start for page in result.pages] == [0, 4, 4]


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (compound_file("PowerPoint Document", "Pictures"), r"Save it as \.pptx"),
        (compound_file("EncryptedPackage"), "Remove the password"),
        (real("policy.pptx")[:3000], "save it again"),
    ],
    ids=["old", "encrypted", "cut off"],
)
def test_a_presentation_that_cannot_be_read_says_what_to_do(content: bytes, advice: str) -> None:
    assert Pptx(Settings()).accepts(Source(filename="talk.pptx", content=content))
    with pytest.raises(UnreadableDocument, match=advice):
        converted(content)


@pytest.mark.parametrize(
    "part",
    [
        '<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa">]><p>&a;</p>',
        '<!DOCTYPE p SYSTEM "http://127.0.0.1:9/p.dtd"><p/>',
        "<p>" * 201 + "</p>" * 201,
    ],
    ids=["entities", "document type", "depth"],
)
def test_a_part_that_no_program_writes_is_refused(part: str) -> None:
    content = pptx(shape("x"), parts={"docProps/core.xml": part})
    with pytest.raises(UnreadableDocument):
        converted(content)


def test_an_encrypted_presentation_of_libreoffice_says_what_to_do() -> None:
    content = open_document("presentation", "", manifest="<manifest:encryption-data/>")
    with pytest.raises(UnreadableDocument, match="Remove the password"):
        Odp(Settings()).convert(Source(filename="talk.odp", content=content))
