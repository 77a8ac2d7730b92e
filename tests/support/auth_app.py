"""The routes of signing in, in an app of this process that browsers reach as `https://proxy.example.test`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from fastapi import APIRouter, FastAPI, Request
from pydantic import SecretStr

from plugins.api import auth, sign_in
from plugins.api.sign_in import SignInParts
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.identity_config import SignInConfig
from plugins.core.ports import Catalogue
from plugins.core.resource import name_metadata
from plugins.core.shapes import CollectionList, CollectionView, Standing
from plugins.core.toolbox import Toolbox
from tests.support.keycloak_issuer import KeycloakIssuer
from tests.support.sign_in_parts import BASE, sign_in_parts

STANDING = Standing(
    user_role="internal_user",
    models=["small"],
    rpm_limit=3,
    tpm_limit=None,
    max_parallel_requests=None,
    max_budget=None,
    spend=0.5,
)
DOCUMENT = "/v1/collections/handbook/documents/file-1/content"


class NoCollections(Catalogue):
    async def list(
        self, principal: Principal, *, after: str | None = None, limit: int = 100
    ) -> CollectionList:
        return CollectionList(data=[])

    async def get(self, principal: Principal, ref: str) -> CollectionView:
        raise NotImplementedError


@dataclass
class App:
    parts: SignInParts
    app: FastAPI
    realm: KeycloakIssuer

    def browser(self) -> Browser:
        return Browser(self)


class Browser:
    """A browser with its cookies; it follows no redirect by itself."""

    def __init__(self, app: App) -> None:
        self._realm = app.realm
        transport = httpx.ASGITransport(app.app, raise_app_exceptions=False)
        headers = {"accept": "text/html", "host": "forged.example"}
        self.http = httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers)

    async def begin(self, then: str = "/", **query: str) -> str:
        """The address of the identity provider that the browser is sent to."""
        answer = await self.http.get(sign_in.SIGN_IN, params={"next": then, **query})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def sign_in(self, username: str = "alice", then: str = "/") -> httpx.Response:
        """The whole way; answers what the callback did."""
        callback = self._realm.browser_signs_in(await self.begin(then), username)
        return await self.http.get(callback)

    async def user(self) -> str | None:
        """Who one is with the cookies of this browser."""
        answer = await self.http.get("/api/auth/me", headers={"sec-fetch-site": "same-origin"})
        return str(answer.json()["user"]) if answer.is_success else None


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


@asynccontextmanager
async def auth_app(
    folder: Path, realm: KeycloakIssuer, settings: SignInConfig | None = None, base: str = BASE
) -> AsyncIterator[App]:
    async with sign_in_parts(folder, realm, settings, base) as made:
        app = FastAPI()
        who = authenticated_by(made)
        name_metadata(app, base)
        toolbox = Toolbox({}, lambda *arguments: NotImplemented)
        app.include_router(auth.router(made, who, lambda request: STANDING, NoCollections(), toolbox))
        app.include_router(sign_in.router(made))
        app.include_router(pages(made, who))
        yield App(made, app, realm)


def authenticated_by(made: SignInParts) -> Any:
    """As the hook of the proxy does it."""

    async def authenticated(request: Request) -> Principal:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        bearer = SecretStr(key) if key else None
        credential = Credential(bearer, dict(request.headers), "127.0.0.1", request.method)
        if bearer is None and not made.sessions.accepts(credential):
            raise Unauthenticated
        source = made.sessions if bearer is None else made.sources[0]
        principal = await source.authenticate(credential)
        await made.revocations(principal)
        return principal

    return authenticated


def pages(made: SignInParts, who: Any) -> APIRouter:
    routes = APIRouter(route_class=sign_in.page_route(made))

    @routes.get("/v1/collections/{collection}/documents/{document}/content")
    async def content(request: Request, document: str) -> str:
        caller = await who(request)
        return f"{document} for {caller.username}"

    return routes
