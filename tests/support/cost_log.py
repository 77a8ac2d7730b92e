"""A callback of LiteLLM's that adds what each call cost, as JSON, to the file ``COST_LOG``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger


class Costs(CustomLogger):
    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        told = kwargs["standard_logging_object"]
        line = {
            "messages": json.dumps(kwargs["messages"]),
            "cost": told["response_cost"],
            "hit": told["cache_hit"],
            "user": told["metadata"]["user_api_key_user_id"],
        }
        with Path(os.environ["COST_LOG"]).open("a") as file:  # noqa: ASYNC230 - a test's log
            file.write(json.dumps(line) + "\n")


costs = Costs()
