"""What every identity source promises, over each one that there is."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from crawler import registry
from crawler.settings import validate
from plugins.auth.litellm import HandBack
from plugins.core.errors import ConfigError, IdentityUnavailable, Unauthenticated
from plugins.core.identity import SOURCE_NAME, Credential, canonical_subject
from plugins.core.ports import IdentitySource
from tests.support import open_webui
from tests.support.gitlab import Gitlab, gitlab
from tests.support.issuer import Issuer, issuer
from tests.support.issuer_acme import AcmeIssuer, acme_issuer

KEY = "sk-contract-0123456789"
JWT_HEADER = open_webui.HEADER.lower()
MASTER_KEY = "sk-master-contract-0123456789"
PASSED_ON = "litellm"
"""The source that hands keys back instead of answering."""


@dataclass(frozen=True)
class Case:
    """Settings that make the source work, and credentials that it should know."""

    use: str
    settings: dict[str, Any]
    good: str
    username: str = "alice"
    bad: str = ""
    """Accepted, then refused; empty where the source refuses by not accepting."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the good credential."""
    bad_headers: dict[str, str] = field(default_factory=dict)
    fresh: Callable[[], str] = str
    """A good credential that the issuer was not asked about yet; empty where there is no issuer to ask."""

    @property
    def secrets(self) -> list[str]:
        signed = [headers.get(JWT_HEADER) for headers in (self.headers, self.bad_headers)]
        given = [self.good, self.bad, *signed, KEY, open_webui.SECRET, open_webui.KEY]
        return [text for text in given if text]


@dataclass(frozen=True)
class Issuers:
    """The servers that sources ask."""

    keycloak: Issuer
    acme: AcmeIssuer
    gitlab: Gitlab

    def down(self, are: bool) -> None:
        self.keycloak.down = self.acme.down = self.gitlab.down = are

    @property
    def asked(self) -> int:
        return len(self.keycloak.requests) + len(self.acme.requests) + len(self.gitlab.requests)


NAMES = ["api_keys", "gitlab", "litellm", "oidc", "oidc-acme", "open_webui", "open_webui-plain"]


def case(name: str, of: Issuers) -> Case:
    web_ui: dict[str, Any] = {"key": open_webui.KEY}
    plain = {key.lower(): value for key, value in open_webui.plain_headers("alice").items()}
    keycloak: dict[str, Any] = {"issuer": of.keycloak.url, "audience": "litellm"}
    found = {
        "api_keys": Case("api_keys", {"keys": [{"key": KEY, "user": "alice"}]}, KEY),
        "litellm": Case("litellm", {"master_key": MASTER_KEY}, "sk-virtual-key"),
        "oidc": Case(
            "oidc", keycloak, of.keycloak.token(), bad=of.keycloak.token(exp=1), fresh=of.keycloak.token
        ),
        "oidc-acme": Case(
            "oidc", of.acme.settings, of.acme.token(), bad=of.acme.token(exp=1), fresh=of.acme.token
        ),
        "gitlab": Case(
            "gitlab",
            of.gitlab.settings,
            of.gitlab.token(),
            bad=of.gitlab.token(application={"uid": "another"}),
            fresh=of.gitlab.token,
        ),
        "open_webui": Case(
            "open_webui",
            {**web_ui, "jwt_secret": open_webui.SECRET},
            open_webui.KEY,
            "alice@example.test",
            open_webui.KEY,
            headers={JWT_HEADER: open_webui.user_token("alice")},
            bad_headers={JWT_HEADER: open_webui.user_token("alice", secret="another-secret-" * 3)},
        ),
        "open_webui-plain": Case(
            "open_webui",
            {**web_ui, "plain_headers": True},
            open_webui.KEY,
            "alice@example.test",
            open_webui.KEY,
            headers=plain,
        ),
    }
    return found[name]


@pytest.fixture(scope="module")
def issuers() -> Iterator[Issuers]:
    with issuer() as keycloak, acme_issuer() as acme, gitlab() as git:
        yield Issuers(keycloak, acme, git)


@pytest.fixture(params=NAMES)
def known(request: pytest.FixtureRequest, issuers: Issuers) -> Case:
    return case(str(request.param), issuers)


@pytest.fixture
async def source(known: Case) -> AsyncIterator[IdentitySource[Any]]:
    made = build(known.use, known.settings)
    yield made
    await made.close()


def build(use: str, settings: dict[str, Any], name: str = "") -> IdentitySource[Any]:
    plugin = registry.find("plugins.auth", IdentitySource, use)  # type: ignore[type-abstract]
    return plugin(validate(registry.settings_type(plugin), settings, use), name or use)


def bearer(text: str | None, headers: dict[str, str] | None = None) -> Credential:
    return Credential(bearer=SecretStr(text) if text is not None else None, headers=headers or {}, peer="")


def test_every_source_that_there_is_is_held_to_the_contract(issuers: Issuers) -> None:
    assert {case(name, issuers).use for name in NAMES} == set(registry.available("plugins.auth"))


async def test_a_good_credential_is_accepted_and_names_a_principal_of_the_source(
    source: IdentitySource[Any], known: Case
) -> None:
    credential = bearer(known.good, known.headers)
    assert source.accepts(credential)
    try:
        principal = await source.authenticate(credential)
    except HandBack:
        assert known.use == PASSED_ON
        return
    assert principal.source == source.name == known.use
    assert SOURCE_NAME.fullmatch(principal.source)
    assert principal.subject
    assert principal.user_id == f"{known.use}/{known.username}"
    shown = f"{principal!r}{principal}{principal.model_dump()}{principal.model_dump_json()}"
    assert not [secret for secret in known.secrets if secret in shown]


async def test_subjects_of_a_principal_can_be_written_in_grants(
    source: IdentitySource[Any], known: Case
) -> None:
    if known.use == PASSED_ON:
        return
    principal = await source.authenticate(bearer(known.good, known.headers))
    for subject in principal.subjects:
        assert canonical_subject(subject, [source.name, "other"]) == subject


async def test_a_bad_credential_is_refused_in_words_that_leak_nothing(
    source: IdentitySource[Any], known: Case, issuers: Issuers
) -> None:
    bad = bearer(known.bad, known.bad_headers)
    assert source.accepts(bad) == bool(known.bad)
    with pytest.raises(Unauthenticated) as caught:
        await source.authenticate(bad)
    message = caught.value.message
    assert len(message) > 20
    assert message.isascii()
    assert message.endswith(".")
    addresses = [issuers.keycloak.url, issuers.acme.url, issuers.gitlab.url, "127.0.0.1"]
    assert not [text for text in (*known.secrets, *addresses) if text in message]


async def test_a_bad_credential_stays_refused_before_and_after_a_good_one(
    source: IdentitySource[Any], known: Case
) -> None:
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await source.authenticate(bearer(known.bad, known.bad_headers))
        try:
            await source.authenticate(bearer(known.good, known.headers))
        except HandBack:
            assert known.use == PASSED_ON


@pytest.mark.parametrize("text", [None, "", "x", "a.b.c", "ä" * 100, "." * 200, "é.ü.ß", "\x00"])
async def test_what_nobody_issued_is_not_accepted_and_refused(
    source: IdentitySource[Any], known: Case, text: str | None
) -> None:
    given = bearer(text, known.headers)
    assert not source.accepts(given)
    with pytest.raises(Unauthenticated):
        await source.authenticate(given)


async def test_the_authorization_server_is_where_its_tokens_come_from(
    source: IdentitySource[Any], known: Case
) -> None:
    expected = {"oidc": known.settings.get("issuer"), "gitlab": known.settings.get("url")}.get(known.use)
    assert source.authorization_server == expected


async def test_deciding_whether_to_accept_does_no_io(
    source: IdentitySource[Any], known: Case, issuers: Issuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = issuers.asked

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert source.accepts(bearer(known.good, known.headers))
    assert issuers.asked == before


async def test_an_issuer_that_is_down_lets_nobody_in_whom_it_was_not_asked_about(
    source: IdentitySource[Any], known: Case, issuers: Issuers
) -> None:
    fresh = known.fresh()
    issuers.down(True)
    try:
        if fresh:
            assert source.accepts(bearer(fresh))
            with pytest.raises(IdentityUnavailable) as caught:
                await source.authenticate(bearer(fresh))
            assert "127.0.0.1" not in caught.value.message
            assert fresh not in f"{caught.value!r}{caught.value}"
        with pytest.raises((Unauthenticated, IdentityUnavailable)):
            await source.authenticate(bearer(known.bad, known.bad_headers))
    finally:
        issuers.down(False)


async def test_an_issuer_that_is_down_does_not_shut_out_who_is_signed_in(
    source: IdentitySource[Any], known: Case, issuers: Issuers
) -> None:
    credential = bearer(known.good, known.headers)
    if known.use == PASSED_ON:
        return
    await source.authenticate(credential)
    issuers.down(True)
    try:
        assert (await source.authenticate(credential)).username == known.username
    finally:
        issuers.down(False)


async def test_equal_names_of_two_sources_are_two_people(known: Case) -> None:
    if known.use == PASSED_ON:
        return
    credential = bearer(known.good, known.headers)
    first, second = build(known.use, known.settings, "first"), build(known.use, known.settings, "second")
    one, other = await first.authenticate(credential), await second.authenticate(credential)
    assert (one.source, other.source) == ("first", "second")
    assert one.subjects & other.subjects == {"*"}
    assert one.user_id != other.user_id
    await first.close()
    await second.close()


async def test_no_secret_is_in_what_is_logged_or_shown(
    source: IdentitySource[Any], known: Case, issuers: Issuers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = f"{source!r}{vars(source)}{source.settings!r}{source.settings.model_dump_json()}"
    good, bad = bearer(known.good, known.headers), bearer(known.bad, known.bad_headers)
    for credential, down in ((good, False), (bad, False), (bearer(known.fresh() or "nobody"), True)):
        shown += f"{credential!r}"
        issuers.down(down)
        try:
            await source.authenticate(credential)
        except (Unauthenticated, IdentityUnavailable, HandBack) as error:
            shown += f"{error!r}"
        finally:
            issuers.down(False)
    shown += f"{vars(source)}{caplog.text}"
    assert not [secret for secret in (*known.secrets, MASTER_KEY) if secret in shown]


async def test_it_answers_a_ping_and_closes_twice(source: IdentitySource[Any]) -> None:
    await source.ping()
    await source.close()
    await source.close()


def test_unknown_settings_are_refused(known: Case) -> None:
    with pytest.raises(ConfigError, match="unknown setting"):
        build(known.use, {**known.settings, "nonsense": 1})


def test_mistakes_in_settings_do_not_show_the_secrets_beside_them(known: Case) -> None:
    with pytest.raises(ConfigError) as caught:
        build(known.use, {**known.settings, "nonsense": KEY})
    assert not [secret for secret in (*known.secrets, MASTER_KEY) if secret in str(caught.value)]
