"""What the proxy of `test_store_credential.py` loads: our hook, and a model and a logger that tell what
reached them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.llms.custom_llm import CustomLLM
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import ModelResponse
from litellm.utils import custom_llm_setup

from plugins.entry import authenticate
from plugins.proxy.auth import principal_of

__all__ = ["authenticate", "hooks"]

SEEN = Path(os.environ["SEEN_FILE"])


def note(kind: str, what: Any) -> None:
    with SEEN.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "what": what}, default=repr) + "\n")


class Model(CustomLLM):
    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        note("model", kwargs)
        response: ModelResponse = kwargs["model_response"]
        choice: Any = response.choices[0]
        choice.message.content = "hi"
        return response


class Hooks(CustomLogger):
    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> None:
        credential = principal_of(user_api_key_dict).store_credential
        note("principal", credential.get_secret_value()[::-1] if credential else None)
        note("request", {key: value for key, value in data.items() if key != "litellm_logging_obj"})

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        note("logged", kwargs)


litellm.custom_provider_map.append({"provider": "noting", "custom_handler": Model()})
custom_llm_setup()  # type: ignore[no-untyped-call]
hooks = Hooks()
