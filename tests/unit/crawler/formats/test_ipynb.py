"""Notebooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crawler.contracts import Converted, Source
from crawler.errors import UnreadableDocument
from crawler.formats.ipynb import MAX_OUTPUT, Ipynb
from crawler.settings import Settings
from tests.unit.crawler.text_samples import NOTEBOOK


def read(notebook: Any) -> Converted:
    content = json.dumps(notebook).encode()
    return Ipynb(Settings()).convert(Source(filename="a.ipynb", content=content))


def code(text: str, *outputs: Any) -> dict[str, Any]:
    return {"cells": [{"cell_type": "code", "source": text, "outputs": outputs}]}


def test_markdown_is_kept_code_is_fenced_and_what_it_printed_follows() -> None:
    converted = read(NOTEBOOK)
    assert converted.markdown == (
        "# Revenue\nBy region.\n\n```python\nprint(6 * 7)\n```\n\nOutput:\n\n```\n42\n```\n\n"
        "Output:\n\n```\n<Figure>\n```\n\nOutput:\n\n```\nKeyError: 'x'\n```"
    )
    assert converted.metadata == {"cell_count": 2, "programming_language": "python", "title": "Revenue"}


def test_code_that_holds_a_fence_gets_a_longer_one() -> None:
    assert read(code('x = """\n```\n"""')).markdown == '````\nx = """\n```\n"""\n````'


def test_a_long_output_is_cut_with_a_warning() -> None:
    converted = read(code("x", {"output_type": "stream", "text": "y" * (MAX_OUTPUT + 1)}))
    assert converted.markdown.count("y") == MAX_OUTPUT
    assert "1 outputs" in converted.warnings[0]


def test_the_old_format_is_read_too() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Leave"},
        {"cell_type": "code", "input": ["x = 1"]},
    ]
    assert read({"worksheets": [{"cells": cells}]}).markdown == "## Leave\n\n```\nx = 1\n```"


@pytest.mark.parametrize("notebook", [[], {}, {"cells": 7, "worksheets": 7}, "x", None])
def test_what_is_no_notebook_is_refused(notebook: Any) -> None:
    if isinstance(notebook, dict) and "cells" in notebook:
        assert read(notebook).markdown == ""
    else:
        with pytest.raises(UnreadableDocument, match="Jupyter"):
            read(notebook)
