"""Everything that LiteLLM hands to callbacks, which send it to logs and traces elsewhere, in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth


class Recorder(CustomLogger):
    def _record(self, *things: Any) -> None:
        with Path(os.environ["SEEN_FILE"]).open("a", encoding="utf-8") as file:
            file.write(f"{things!r}\n")

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        self._record("before", data)
        return data

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._record("logged", kwargs)


recorder = Recorder()
