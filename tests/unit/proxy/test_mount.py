"""Our routes in LiteLLM's application, and who may call them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from litellm.proxy._lazy_features import attach_lazy_features
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.proxy.proxy_server import openai_exception_handler

from plugins.core.identity import Principal
from plugins.proxy import mount as mounting
from plugins.proxy.auth import PrincipalAuth
from plugins.proxy.mount import authenticated, mount

ALICE = Principal(source="keycloak", subject="1", username="alice")


def client(monkeypatch: pytest.MonkeyPatch, auth: UserAPIKeyAuth) -> TestClient:
    """An application like LiteLLM's, with a pattern that matches everything, and one route of ours."""

    async def builder(**asked: Any) -> UserAPIKeyAuth:
        assert asked["request_data"] == {}, "the body is not read"
        return auth

    monkeypatch.setattr(mounting, "user_api_key_auth_builder", builder)
    app = FastAPI()
    app.add_exception_handler(ProxyException, openai_exception_handler)  # type: ignore[arg-type]
    router = APIRouter()

    @app.get("/{anything:path}")
    def pattern() -> str:
        return "LiteLLM's"

    @router.get("/v1/tools")
    def ours(principal: Annotated[Principal, Depends(authenticated)]) -> str:
        return principal.user_id

    attach_lazy_features(app)
    mount(app, [router])
    return TestClient(app)


def key(**fields: Any) -> UserAPIKeyAuth:
    auth = UserAPIKeyAuth(api_key="sk-1", user_id="u1", **fields)
    auth.via_virtual_key = True
    return auth


def test_our_route_wins_over_a_pattern_without_loading_a_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = client(monkeypatch, PrincipalAuth(principal=ALICE))
    assert asked.get("/v1/tools").json() == "keycloak/alice"
    assert asked.app.state.lazy_loaded == set()  # type: ignore[attr-defined]
    assert asked.get("/v1/other").json() == "LiteLLM's"


@pytest.mark.parametrize("allowed", [[], ["/v1/tools"], ["/v1/*"]])
def test_a_virtual_key_may_call_what_it_is_not_limited_from(
    monkeypatch: pytest.MonkeyPatch, allowed: list[str]
) -> None:
    assert client(monkeypatch, key(allowed_routes=allowed)).get("/v1/tools").json() == "litellm/u1"


@pytest.mark.parametrize("allowed", [["/v1/chat/completions"], ["llm_api_routes"], ["management_routes"]])
def test_a_virtual_key_that_is_limited_to_other_routes_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, allowed: list[str]
) -> None:
    answer = client(monkeypatch, key(allowed_routes=allowed)).get("/v1/tools")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "permission_denied"
    assert "may not be used on this route" in answer.json()["error"]["message"]


def test_who_did_not_sign_in_gets_401_also_where_litellm_lets_the_request_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = client(monkeypatch, UserAPIKeyAuth()).get("/v1/tools")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"].startswith("Bearer error=")
