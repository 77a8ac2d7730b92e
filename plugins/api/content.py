"""How an original is handed out. It lies on the origin of LiteLLM's admin pages and may be hostile."""

from __future__ import annotations

import mimetypes
import re
from urllib.parse import quote

_SHOWN = {"application/pdf", "text/plain"}
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,64}/[A-Za-z0-9.+-]{1,128}")


def headers_of(filename: str, media_type: str | None) -> tuple[str, dict[str, str]]:
    """The Content-Type and the other headers: only PDF and plain text are shown, everything else is saved.

    The file name is given twice, in ASCII and in UTF-8 (RFC 6266, section 4.3; RFC 8187).
    """
    kind = media_type or mimetypes.guess_type(filename)[0] or ""
    if not _MEDIA_TYPE.fullmatch(kind):
        kind = "application/octet-stream"
    disposition = "inline" if kind in _SHOWN else "attachment"
    ascii_name = re.sub(r"[^A-Za-z0-9 ._()+,-]", "_", filename)
    encoded = quote(filename, safe="", errors="replace")
    return ("text/plain; charset=utf-8" if kind == "text/plain" else kind), {
        "Content-Disposition": f"{disposition}; filename=\"{ascii_name}\"; filename*=UTF-8''{encoded}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
        "Cache-Control": "private, no-store",
    }
