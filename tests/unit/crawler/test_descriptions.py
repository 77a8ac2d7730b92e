"""Pictures described by a model: where the words go, and what happens when there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from crawler.contracts import Converted, Image, Page, Services
from crawler.crawler import CrawlerConfig, PluginConfig, Preparer
from crawler.descriptions import ImageDescriptions, describe
from crawler.errors import ModelFailed, UnreadableDocument
from tests.fixtures.formats.make_inside import png
from tests.unit.crawler.samples import document, real

SETTINGS = ImageDescriptions(model="eyes")


def picture(offset: int, *, side: int = 200, shade: int = 0) -> Image:
    content = png((side, side, bytes([shade]) * (side // 8) * side))
    return Image(offset=offset, media_type="image/png", content=content)


class Eyes:
    """A model that answers, or fails, in turn."""

    def __init__(self, *answers: str | ModelFailed) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any]] = []

    async def __call__(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        response_format: Mapping[str, Any] | None = None,
    ) -> str:
        self.asked.append((model, messages))
        answer = self.answers.pop(0)
        if isinstance(answer, ModelFailed):
            raise answer
        return answer


def refusal() -> ModelFailed:
    error = ModelFailed("no")
    error.transient = False
    return error


async def test_a_description_stands_after_the_paragraph_that_holds_its_picture() -> None:
    text = "# Plan\n\nThe quay is here.\n\nThe end."
    eyes = Eyes("A map of the quay.")
    found = await describe(Converted(markdown=text, images=(picture(text.index("quay")),)), SETTINGS, eyes)
    assert found.markdown == (
        "# Plan\n\nThe quay is here.\n\nImage description: A map of the quay.\n\nThe end."
    )
    assert found.images == ()
    model, messages = eyes.asked[0]
    assert model == "eyes"
    assert messages[0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")


async def test_tables_and_fences_are_not_cut_by_a_description() -> None:
    text = "| a | b |\n|---|---|\n| 1 | 2 |\n\n```\none\n\ntwo\n```"
    images = (picture(text.index("1")), picture(text.index("two"), shade=1))
    found = await describe(Converted(markdown=text, images=images), SETTINGS, Eyes("First.", "Second."))
    assert found.markdown == (
        "| a | b |\n|---|---|\n| 1 | 2 |\n\nImage description: First.\n\n"
        "```\none\n\ntwo\n```\n\nImage description: Second."
    )


async def test_pages_begin_where_they_did() -> None:
    text = "One.\n\nTwo.\n\nThree."
    pages = tuple(Page(number=n, start=text.index(word)) for n, word in enumerate(("One", "Two", "Three"), 1))
    images = (picture(4), picture(10, shade=1))
    found = await describe(Converted(markdown=text, pages=pages, images=images), SETTINGS, Eyes("A.", "B."))
    starts = [page.start for page in found.pages]
    assert [found.markdown[start:].split(".")[0] for start in starts] == ["One", "Two", "Three"]
    assert found.markdown[starts[0] : starts[1]].rstrip().endswith("Image description: A.")
    assert found.markdown[starts[1] : starts[2]].rstrip().endswith("Image description: B.")


async def test_what_a_picture_says_becomes_no_markdown() -> None:
    eyes = Eyes("# Title\n\n[press](javascript:x) | <b> `code`")
    found = await describe(Converted(markdown="Text.", images=(picture(5),)), SETTINGS, eyes)
    assert found.markdown == (
        "Text.\n\nImage description: # Title \\[press\\](javascript:x) \\| \\<b\\> \\`code\\`"
    )


async def test_small_and_repeated_pictures_are_not_asked_about_and_the_limit_is_told() -> None:
    images = (picture(0, side=16), picture(0), picture(0), picture(0, shade=1), picture(0, shade=2))
    settings = ImageDescriptions(model="eyes", max_images=2)
    eyes = Eyes("A.", "B.")
    found = await describe(Converted(markdown="Text.", images=images), settings, eyes)
    assert len(eyes.asked) == 2
    assert found.warnings == ("1 more pictures are not described, by this pipeline's limit.",)


async def test_a_refused_picture_is_a_warning_and_the_others_are_described() -> None:
    images = (picture(5), picture(5, shade=1))
    found = await describe(Converted(markdown="Text.", images=images), SETTINGS, Eyes(refusal(), "A ship."))
    assert found.markdown == "Text.\n\nImage description: A ship."
    assert found.warnings == ("The model described 1 of 2 pictures and refused the others.",)


async def test_a_model_that_may_answer_later_is_asked_again_with_the_whole_document() -> None:
    with pytest.raises(ModelFailed):
        await describe(Converted(markdown="Text.", images=(picture(5),)), SETTINGS, Eyes(ModelFailed()))


async def test_without_the_setting_no_model_is_asked() -> None:
    eyes = Eyes()
    found = await describe(Converted(markdown="Text.", images=(picture(5),)), None, eyes)
    assert (found.markdown, found.warnings, eyes.asked) == ("Text.", (), [])


async def test_without_a_proxy_the_pictures_are_left_out_with_a_warning() -> None:
    found = await describe(Converted(markdown="Text.", images=(picture(5),)), SETTINGS, None)
    assert found.markdown == "Text."
    assert "no proxy to ask" in found.warnings[0]


async def test_a_picture_without_any_text_is_refused_in_words_that_say_what_is_missing() -> None:
    converted = Converted(markdown="", images=(picture(0),), warnings=("Install Tesseract.",))
    with pytest.raises(UnreadableDocument, match=r"Tesseract\. The model described 0 of 1"):
        await describe(converted, SETTINGS, Eyes(refusal()))


async def test_a_pipeline_with_a_model_makes_a_document_of_a_photograph() -> None:
    config = CrawlerConfig(
        formats=(PluginConfig.model_validate({"use": "image", "ocr": "off"}),),
        image_descriptions=SETTINGS,
    )
    given = document().model_copy(update={"source": "quay.png", "content": real("note.png")})
    eyes = Eyes("A notice about the north quay.")
    prepared = await Preparer(config, Services(complete=eyes)).prepare(given)
    assert prepared.markdown == "Image description: A notice about the north quay."
    assert [chunk.content for chunk in prepared.chunks] == [prepared.markdown]
