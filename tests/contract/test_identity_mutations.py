"""Credentials that nobody may get in with; with any one check of a source taken away, one of them does."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from joserfc import jwt
from pydantic import SecretStr

from plugins.auth import _verifier, gitlab, open_webui
from plugins.auth._claims import decoded
from plugins.auth.api_keys import ApiKey, ApiKeys, ApiKeysSettings
from plugins.auth.gitlab import Gitlab, GitlabSettings
from plugins.auth.oidc import Oidc, OidcSettings
from plugins.auth.open_webui import OpenWebui, OpenWebuiSettings
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource
from tests.support import gitlab as forge
from tests.support import open_webui as web_ui
from tests.support.issuer import Issuer, b64, issuer

Patch = Callable[[pytest.MonkeyPatch], None]
KEY = "sk-mutations-0123456789"


@dataclass(frozen=True)
class World:
    company: Issuer
    stranger: Issuer
    """Signs what nobody should believe."""
    git: forge.Gitlab
    sources: dict[str, IdentitySource[Any]]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Issuer, Issuer, forge.Gitlab]]:
    with issuer("company") as company, issuer("stranger") as stranger, forge.gitlab() as git:
        yield company, stranger, git


@pytest.fixture
async def world(servers: tuple[Issuer, Issuer, forge.Gitlab]) -> AsyncIterator[World]:
    company, stranger, git = servers
    keys = ApiKeysSettings(keys=[ApiKey(key=SecretStr(KEY), user="alice")])
    signed = OpenWebuiSettings(key=SecretStr(web_ui.KEY), jwt_secret=SecretStr(web_ui.SECRET))
    sources: dict[str, IdentitySource[Any]] = {
        "oidc": Oidc(OidcSettings(issuer=company.url, audience="litellm"), "oidc"),
        "gitlab": Gitlab(GitlabSettings(**git.settings), "gitlab"),
        "open_webui": OpenWebui(signed, "open_webui"),
        "api_keys": ApiKeys(keys, "api_keys"),
    }
    yield World(company, stranger, git, sources)
    for source in sources.values():
        await source.close()


def bearer(token: str, **headers: str) -> Credential:
    return Credential(bearer=SecretStr(token), headers=headers, peer="")


def asked(**changed: Any) -> Callable[[World], Credential]:
    """A token of the issuer with other claims; times are in seconds from now."""

    def make(world: World) -> Credential:
        moments = ("exp", "nbf", "iat")
        times = {key: int(time.time()) + changed[key] for key in moments if key in changed}
        return bearer(world.company.token(**{**changed, **times}))

    return make


def headed(**header: Any) -> Callable[[World], Credential]:
    return lambda world: bearer(world.company.sign(world.company.claims(), header))


def twice(world: World) -> Credential:
    claims = json.dumps(world.company.claims())
    return bearer(world.company.sign(f'{claims[:-1]}, "preferred_username": "root"}}'.encode()))


def unsigned(world: World) -> Credential:
    return bearer(world.company.sign(world.company.claims(), {"alg": "none"}))


def by_public_key(world: World) -> Credential:
    header = b64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": world.company.keys[0].kid}).encode())
    signed = f"{header}.{b64(json.dumps(world.company.claims()).encode())}"
    mac = hmac.new(world.company.keys[0].as_pem(private=False), signed.encode(), hashlib.sha256)
    return bearer(f"{signed}.{b64(mac.digest())}")


def of_stranger(world: World) -> Credential:
    key = world.stranger.keys[0]
    return bearer(world.company.sign(world.company.claims(), {"jwk": key.as_dict(private=False)}, key))


def signed_user(**changed: Any) -> Callable[[World], Credential]:
    def make(world: World) -> Credential:
        times: dict[str, Any] = {k: int(time.time()) + changed[k] for k in ("exp", "iat") if k in changed}
        token = web_ui.user_token(**(changed | times))
        return bearer(web_ui.KEY, **{web_ui.HEADER.lower(): token})

    return make


FORGERIES: dict[str, tuple[str, Callable[[World], Credential]]] = {
    "another realm's issuer": ("oidc", asked(iss="https://stranger.example/realms/company")),
    "another audience": ("oidc", asked(aud="account")),
    "expired": ("oidc", asked(exp=-31)),
    "not valid yet": ("oidc", asked(nbf=300)),
    "issued in the future": ("oidc", asked(iat=300)),
    "an ID token by its claim": ("oidc", asked(typ="ID")),
    "an ID token by its hash": ("oidc", asked(typ=None, at_hash="x")),
    "a logout token by its header": ("oidc", headed(typ="logout+jwt")),
    "an extension nobody knows": ("oidc", headed(crit=["exp"])),
    "a name twice": ("oidc", twice),
    "no signature": ("oidc", unsigned),
    "signed with the public key": ("oidc", by_public_key),
    "signed with its own key": ("oidc", of_stranger),
    "over 16 KiB": ("oidc", asked(padding="x" * 17_000)),
    "another application": ("gitlab", lambda w: bearer(w.git.token(application={"uid": "another"}))),
    "without openid": ("gitlab", lambda w: bearer(w.git.token(scope=["read_user"]))),
    "of an application": ("gitlab", lambda w: bearer(w.git.token(resource_owner_id=None))),
    "of two users": ("gitlab", lambda w: bearer(w.git.token(resource_owner_id=7))),
    "unknown": ("gitlab", lambda w: bearer("0" * 64)),
    "a personal token": ("gitlab", lambda w: bearer("glpat-" + "0" * 20)),
    "Open WebUI's user without its key": (
        "open_webui",
        lambda w: bearer("sk-somebody-0123456789", **{web_ui.HEADER.lower(): web_ui.user_token()}),
    ),
    "signed with another secret": ("open_webui", signed_user(secret="another-secret-0123456789-0123456789")),
    "of another issuer": ("open_webui", signed_user(iss="another")),
    "a user token that expired": ("open_webui", signed_user(iat=-400, exp=-100)),
    "a user token that lives for an hour": ("open_webui", signed_user(exp=3600)),
    "plain headers": (
        "open_webui",
        lambda w: bearer(web_ui.KEY, **{k.lower(): v for k, v in web_ui.plain_headers().items()}),
    ),
    "another key": ("api_keys", lambda w: bearer("sk-somebody-0123456789")),
}


async def who_gets_in(world: World) -> dict[str, Principal]:
    """By the forgery with which they do; as in the proxy, who is not accepted does not."""
    found = {}
    for name, (use, make) in FORGERIES.items():
        credential = make(world)
        source = world.sources[use]
        try:
            if source.accepts(credential):
                found[name] = await source.authenticate(credential)
        except (Unauthenticated, IdentityUnavailable):
            continue
    return found


async def test_nobody_gets_in_with_a_forgery(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"identity: {len(FORGERIES)} forgeries, {len(MUTATIONS)} checks taken away\n")
    assert await who_gets_in(world) == {}


async def test_what_the_forgeries_are_made_of_is_good(world: World) -> None:
    """Without this, their refusal would prove nothing."""
    good = {
        "oidc": bearer(world.company.token()),
        "gitlab": bearer(world.git.token()),
        "open_webui": signed_user()(world),
        "api_keys": bearer(KEY),
    }
    for use, credential in good.items():
        assert world.sources[use].accepts(credential)
        assert await world.sources[use].authenticate(credential)


def unverified(module: Any) -> Patch:
    """Signatures are not looked at; the algorithm is still the allow-list's."""

    def read(token: str, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(payload=decoded(token.split(".")[1]))

    return lambda monkeypatch: monkeypatch.setattr(module.jws, "deserialize_compact", read)


def claim_is_not_checked(name: str) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = jwt.JWTClaimsRegistry.validate

        def validate(self: jwt.JWTClaimsRegistry, claims: Any) -> None:
            kept = {key: option for key, option in self.options.items() if key != name}
            monkeypatch.setattr(self, "options", kept)
            real(self, {key: value for key, value in claims.items() if key != name})

        monkeypatch.setattr(jwt.JWTClaimsRegistry, "validate", validate)

    return patch


def header_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def header(self: Any, token: str, kind: Any) -> Any:
        return json.loads(decoded(token.split(".")[0]))

    monkeypatch.setattr(_verifier.Verifier, "_header", header)


def set_to(target: Any, name: str, value: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def kind_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _verifier.Kind.__init__

    def init(self: Any, name: Any, types: Any, registry: Any, other: Any, is_it: Any) -> None:
        real(self, name, types, registry, other, lambda claims: True)

    monkeypatch.setattr(_verifier.Kind, "__init__", init)


MUTATIONS: dict[str, Patch] = {
    "a token's signature is not checked": unverified(_verifier),
    **{
        f"a token's `{name}` is not checked": claim_is_not_checked(name)
        for name in ("aud", "exp", "nbf", "iat", "typ")
    },
    "a token's header is not checked": header_is_not_checked,
    "a token's kind is not checked": kind_is_not_checked,
    "a name may stand twice": set_to(_verifier, "strict_object", json.loads),
    "a token may have any size": set_to(_verifier, "MAX_TOKEN_BYTES", 1 << 20),
    "any application of GitLab": set_to(Gitlab, "_lasts_s", lambda self, info: 60.0),
    "GitLab's two answers are not compared": set_to(gitlab, "_number", lambda value: "7"),
    "any secret of Open WebUI": unverified(open_webui),
    "any life of Open WebUI's token": set_to(open_webui, "MAX_LIFE_S", 1 << 20),
    "any bearer is Open WebUI's": set_to(OpenWebui, "accepts", lambda self, credential: True),
    "any key is known": set_to(ApiKeys, "_find", lambda self, credential: self._keys[0][1]),
}


@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_forgery_gets_in_when(
    name: str, servers: tuple[Issuer, Issuer, forge.Gitlab], monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTATIONS[name](monkeypatch)
    made = world.__wrapped__(servers)  # type: ignore[attr-defined]
    assert await who_gets_in(await anext(made)) != {}
    await made.aclose()
