"""Kinds of files, one module each: a :class:`crawler.contracts.Format`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crawler.contracts import Format, Source
from crawler.errors import UnsupportedFormat


def choose(formats: Sequence[Format[Any]], source: Source) -> Format[Any]:
    """The first of ``formats`` that accepts ``source``; quick, and loads no converter.

    Raises:
        UnsupportedFormat: None does; the message names the kinds that are supported, or says that the
            file's name lies.
    """
    for format_ in formats:
        if format_.accepts(source):
            return format_
    kinds = dict.fromkeys(type(f).__module__.rpartition(".")[2] for f in formats)  # of several pipelines
    if (named := source.suffix.removeprefix(".")) in kinds:
        raise UnsupportedFormat(
            f"The file is not what its name says: {named}. Check it, and upload it under its right name."
        )
    raise UnsupportedFormat(f"This type of file is not supported. Supported are: {', '.join(kinds)}.")
