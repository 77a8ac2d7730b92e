"""What every identity source promises, over each one that there is."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from crawler import registry
from crawler.settings import validate
from plugins.auth.litellm import HandBack
from plugins.core.errors import ConfigError, IdentityUnavailable, Unauthenticated
from plugins.core.identity import SOURCE_NAME, Credential
from plugins.core.ports import IdentitySource
from tests.support.issuer import Issuer, issuer

KEY = "sk-contract-0123456789"


@dataclass(frozen=True)
class Case:
    """Settings that make the source work, and credentials that it should know."""

    settings: dict[str, Any]
    good: str
    bad: str
    """Accepted, then refused; empty where the source refuses by not accepting."""


def case(name: str, realm: Issuer) -> Case:
    return {
        "oidc": Case({"issuer": realm.url, "audience": "litellm"}, realm.token(), realm.token(exp=1)),
        "api_keys": Case({"keys": [{"key": KEY, "user": "alice"}]}, KEY, ""),
        "litellm": Case({}, "sk-virtual-key", ""),
    }[name]


@pytest.fixture(scope="module")
def realm() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture(params=registry.available("plugins.auth"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def source(name: str, realm: Issuer) -> AsyncIterator[IdentitySource[Any]]:
    made = build(name, case(name, realm).settings)
    yield made
    await made.close()


def build(name: str, settings: dict[str, Any]) -> IdentitySource[Any]:
    plugin = registry.find("plugins.auth", IdentitySource, name)  # type: ignore[type-abstract]
    return plugin(validate(registry.settings_type(plugin), settings, name), name)


def bearer(text: str | None) -> Credential:
    return Credential(bearer=SecretStr(text) if text is not None else None, headers={}, peer="127.0.0.1")


async def test_a_good_credential_is_accepted_and_names_a_principal_of_the_source(
    source: IdentitySource[Any], name: str, realm: Issuer
) -> None:
    credential = bearer(case(name, realm).good)
    assert source.accepts(credential)
    try:
        principal = await source.authenticate(credential)
    except HandBack:
        assert name == "litellm"
        return
    assert principal.source == source.name == name
    assert SOURCE_NAME.fullmatch(principal.source)
    assert principal.username
    assert principal.subject
    assert principal.user_id == f"{name}/alice"
    assert case(name, realm).good not in f"{principal!r}{principal.model_dump()}{principal.model_dump_json()}"


async def test_a_bad_credential_is_refused_in_words_that_leak_nothing(
    source: IdentitySource[Any], name: str, realm: Issuer
) -> None:
    bad = case(name, realm).bad
    if bad:
        assert source.accepts(bearer(bad))
    with pytest.raises(Unauthenticated) as caught:
        await source.authenticate(bearer(bad))
    message = caught.value.message
    assert len(message) > 20
    assert message.isascii()
    for secret in (bad, realm.url, "127.0.0.1", KEY):
        assert not secret or secret not in message


@pytest.mark.parametrize("text", [None, "", "x", "a.b.c", "ä" * 100, "." * 200, "é.ü.ß", "\x00"])
async def test_what_nobody_issued_is_not_accepted_and_refused(
    source: IdentitySource[Any], text: str | None
) -> None:
    assert not source.accepts(bearer(text))
    with pytest.raises((Unauthenticated, IdentityUnavailable)):
        await source.authenticate(bearer(text))


async def test_deciding_whether_to_accept_does_no_io(
    source: IdentitySource[Any], name: str, realm: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = case(name, realm).good
    before = len(realm.requests)

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert source.accepts(bearer(good))
    assert len(realm.requests) == before


async def test_it_answers_a_ping_and_closes_twice(source: IdentitySource[Any]) -> None:
    await source.ping()
    await source.close()
    await source.close()


def test_unknown_settings_are_refused(name: str, realm: Issuer) -> None:
    with pytest.raises(ConfigError, match="unknown setting"):
        build(name, {**case(name, realm).settings, "nonsense": 1})
