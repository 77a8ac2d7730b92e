"""A small bundle for tests of sign-in: real sources, and hooks and routes that say whom they see."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

import litellm
from fastapi import APIRouter, Depends
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.proxy_server import app

from plugins.bundle.resolve import resolve
from plugins.core import logs
from plugins.core.config import folder, load
from plugins.core.errors import BundleError
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource
from plugins.proxy.auth import Authenticate, PrincipalAuth, hash_refused_keys, principal_of
from plugins.proxy.mount import authenticated, mount

litellm.enable_post_custom_auth_checks = True
hash_refused_keys()
logs.configure()

config = load(folder())
sources: list[IdentitySource[Any]] = [
    found.plugin(found.settings, found.name)
    for found in resolve("plugins.auth", IdentitySource, config.identity.sources, "identity.sources")
]
router = APIRouter()
seen: dict[str, Any] = {}


class Broken(IdentitySource[Any]):
    """Accepts one key and fails in a way that nobody foresaw."""

    def accepts(self, credential: Credential) -> bool:
        return credential.bearer is not None and credential.bearer.get_secret_value() == "broken"

    async def authenticate(self, credential: Credential) -> Principal:
        raise ZeroDivisionError("secret-of-the-traceback")


@router.get("/v1/whoami")
@router.get("/v1/tools")
@router.post("/v1/tools")
@router.get("/v1/collections/{collection}/documents")
async def whoami(principal: Annotated[Principal, Depends(authenticated)]) -> dict[str, Any]:
    return {"user": principal.user_id, "subjects": sorted(principal.subjects)}


@router.get("/v1/seen")
async def what_was_seen(principal: Annotated[Principal, Depends(authenticated)]) -> dict[str, Any]:
    return seen


class Hooks(CustomLogger):
    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        try:
            data["mock_response"] = principal_of(user_api_key_dict).user_id
        except BundleError as error:
            data["mock_response"] = error.message
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        seen["success"] = principal_of(user_api_key_dict).user_id
        return response

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        seen["stream"] = principal_of(user_api_key_dict).user_id
        async for chunk in response:
            yield chunk

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: str | None = None,
    ) -> None:
        seen["failed"] = f"{user_api_key_dict.api_key}{user_api_key_dict!r}{request_data}"

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        metadata = kwargs["litellm_params"]["metadata"]
        auth = metadata["user_api_key_auth"]
        seen["logged"] = {
            "object": f"{kwargs.get('standard_logging_object')}",
            "key": metadata["user_api_key"],
            "user": metadata["user_api_key_user_id"],
            "auth": f"{auth!r}{auth.model_dump_json()}",
            "is_ours": isinstance(auth, PrincipalAuth),
        }


mount(app, [router])
authenticate = Authenticate([Broken(None, "broken"), *sources], config.identity.allowances)
hooks = Hooks()
