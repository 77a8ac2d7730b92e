"""What the doctor says of identity sources and of a token."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk
from pydantic import SecretStr

from plugins.auth.api_keys import ApiKeys, ApiKeysSettings
from plugins.auth.gitlab import Gitlab, GitlabSettings
from plugins.auth.litellm import Litellm, LitellmSettings
from plugins.auth.oidc import Oidc
from plugins.auth.open_webui import OpenWebui, OpenWebuiSettings
from plugins.bundle.doctor.findings import Finding, Notes
from plugins.bundle.doctor.identity import LitellmFacts, check_clock, examine_source
from plugins.bundle.doctor.token import examine_token
from plugins.core.config import Config
from plugins.core.errors import Unauthenticated
from plugins.core.identity_config import IdentityConfig, Source
from plugins.core.ports import IdentitySource
from tests.support.doctor import Server, found, said
from tests.support.issuer import Issuer, issuer
from tests.support.oidc import bearer, source_for

FACTS = LitellmFacts(master_key="sk-master-0123456789abcdef", weakness=None, database=False)


@pytest.fixture(scope="module")
def shared() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture
def realm(shared: Issuer) -> Iterator[Issuer]:
    yield shared
    shared.down = False
    shared.overrides.clear()


async def of_source(source: IdentitySource[Any]) -> list[Finding]:
    findings = await found(lambda notes: examine_source(notes, source, FACTS))
    await source.close()
    return findings


@pytest.mark.parametrize(
    ("skew_s", "leeway_s", "level"), [(0, 30, "ok"), (20, 30, "warn"), (-20, 30, "warn"), (90, 30, "fail")]
)
async def test_clocks_are_compared_with_the_leeway(skew_s: int, leeway_s: int, level: str) -> None:
    async def examine(notes: Notes) -> None:
        check_clock(notes, skew_s, leeway_s)

    [finding] = await found(examine)
    assert finding.level == level
    assert finding.found.startswith(f"its clock is {abs(skew_s)} s" if skew_s else "the clocks agree")


async def test_an_issuers_clock_is_read_from_its_answers_and_from_a_token(realm: Issuer) -> None:
    assert "the clocks agree" in said(await of_source(source_for(realm)), "ok")
    client = {"client_id": "litellm", "client_secret": "a-secret-of-the-client"}
    early = realm.token(iat=int(time.time()) - 90)
    realm.overrides["introspect"] = (200, {"active": False})
    realm.overrides["token"] = (200, {"access_token": early})
    findings = await of_source(source_for(realm, **client))
    assert re.search(r"its clock is (89|9\d) s behind ours, and `leeway_s` is 30", said(findings, "fail"))


async def test_an_issuer_that_calls_itself_otherwise_is_named(realm: Issuer) -> None:
    findings = await of_source(source_for(realm, issuer=f"{realm.url}/"))
    assert f"the issuer calls itself `{realm.url}`, and `issuer` is `{realm.url}/`" in said(findings, "fail")


async def test_an_address_without_discovery_says_what_keycloaks_looks_like(realm: Issuer) -> None:
    realm.overrides["openid-configuration"] = (404, {})
    findings = await of_source(source_for(realm))
    assert "answers 404 and no JSON object -> Check `issuer`: Keycloak's is" in said(findings, "fail")


async def test_keys_that_cannot_check_signatures_are_told_from_those_that_can(realm: Issuer) -> None:
    encryption = jwk.RSAKey.generate_key(2048, {"use": "enc"}, auto_kid=True).as_dict(private=False)
    short = jwk.RSAKey.generate_key(1024, {"use": "sig"}, auto_kid=True).as_dict(private=False)
    elliptic = jwk.ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)
    realm.overrides["certs"] = (200, {"keys": [encryption, short]})
    assert "no usable signing key is published; 2 more not for" in said(
        await of_source(source_for(realm)), "fail"
    )
    realm.overrides["certs"] = (200, {"keys": [elliptic.as_dict(private=False)]})
    assert "no key is for an accepted algorithm: EC ES384" in said(await of_source(source_for(realm)), "fail")


async def test_our_client_at_keycloak_is_tried(realm: Issuer) -> None:
    client = {"client_id": "litellm", "client_secret": "a-secret-of-the-client"}
    realm.overrides["introspect"] = (200, {"active": False})
    accepted = await of_source(source_for(realm, **client))
    assert "the client `litellm` is accepted, and may introspect tokens" in said(accepted, "ok")
    realm.overrides["introspect"] = (401, {"error": "invalid_client"})
    assert "Keycloak refuses the client `litellm` (401)" in said(
        await of_source(source_for(realm, **client)), "fail"
    )


async def test_a_directory_that_is_not_allowed_says_which_roles_it_needs(realm: Issuer) -> None:
    client = {"client_id": "litellm", "client_secret": "a-secret-of-the-client", "directory": True}
    findings = await of_source(source_for(realm, **client))
    assert "the roles `view-users` and `view-realm`" in said(findings, "fail")


async def test_the_master_key_is_nobodys_own() -> None:
    settings: dict[str, Any] = {"keys": [{"key": FACTS.master_key, "user": "alice"}]}
    findings = await of_source(ApiKeys(ApiKeysSettings(**settings), "local"))
    assert "the master key is one of the keys" in said(findings, "fail")
    webui: dict[str, Any] = {"key": FACTS.master_key, "plain_headers": True}
    findings = await of_source(OpenWebui(OpenWebuiSettings(**webui), "webui"))
    assert "its key is the master key" in said(findings, "fail")
    assert "it believes unsigned headers" in said(findings, "warn")


async def test_gitlab_is_known_by_how_it_answers(serve: Callable[..., Server]) -> None:
    def gitlab(path: str, _: object) -> tuple[int, Any]:
        return (401, {"error": "invalid_token"}) if path == "/oauth/token/info" else (200, {"issuer": "x"})

    settings: dict[str, Any] = {"applications": ["app"]}
    good, other = serve(gitlab), serve(lambda path, sent: (200, {}))
    findings = await of_source(Gitlab(GitlabSettings(url=good.url, **settings), "gitlab"))
    assert "answers as GitLab does" in said(findings, "ok")
    findings = await of_source(Gitlab(GitlabSettings(url=other.url, **settings), "gitlab"))
    assert "does not answer as GitLab does" in said(findings, "fail")


def config_for(source: Oidc, tmp_path: Path) -> Config:
    return Config(folder=tmp_path, identity=IdentityConfig(sources=[Source(use="oidc", name=source.name)]))


def changed(**claims: Any) -> Callable[[Issuer], str]:
    return lambda realm: realm.token("alice", **claims)


def timed(claim: str, from_now_s: int) -> Callable[[Issuer], str]:
    return lambda realm: realm.token("alice", **{claim: int(time.time()) + from_now_s})


TOKENS: list[tuple[Callable[[Issuer], str], str]] = [
    (timed("exp", -100), "exp: expired "),
    (changed(exp=None), "exp is missing"),
    (timed("nbf", 100), "nbf: "),
    (timed("iat", 100), "s in the future (leeway 30 s)"),
    (changed(aud="account"), "aud is account, wanted is litellm"),
    (changed(typ="ID"), "typ is `ID`"),
    (changed(at_hash="x"), "it has an at_hash"),
    (changed(sub=None), "sub is missing"),
    (lambda realm: realm.sign(realm.claims(), {"typ": "logout+jwt"}), "header typ is `logout+jwt`"),
    (lambda realm: realm.sign(realm.claims(), {"alg": "none"}), "header alg is `none`"),
    (lambda realm: realm.sign(realm.claims(), {"kid": "unknown"}), "key `unknown` is not published"),
    (lambda realm: realm.token()[:-8] + "AAAAAAAA", "the signature is wrong"),
]


@pytest.mark.parametrize(("make", "line"), TOKENS, ids=[line for _, line in TOKENS])
async def test_what_makes_a_token_bad_is_the_one_step_that_fails(
    realm: Issuer, tmp_path: Path, make: Callable[[Issuer], str], line: str
) -> None:
    source, token = source_for(realm), make(realm)
    with pytest.raises(Unauthenticated) as refused:
        await source.authenticate(bearer(token))
    config = config_for(source, tmp_path)
    findings = await found(lambda notes: examine_token(notes, SecretStr(token), [source], config))
    await source.close()
    failures = [finding for finding in findings if finding.level == "fail"]
    assert line in failures[0].found
    assert failures[-1].found == f"refused: {refused.value.message}"
    assert len(failures) == 2, failures


async def test_a_token_of_a_stranger_names_both_issuers(realm: Issuer, tmp_path: Path) -> None:
    source = source_for(realm)
    token = SecretStr(realm.token(iss="https://other.example.test"))
    findings = await found(lambda notes: examine_token(notes, token, [source], config_for(source, tmp_path)))
    await source.close()
    assert said(findings, "fail").startswith(
        f"iss is `https://other.example.test`, and the configured issuers are: `{realm.url}`"
    )


async def test_claims_that_are_not_there_are_said(realm: Issuer, tmp_path: Path) -> None:
    source = source_for(realm)
    token = SecretStr(realm.token("carol"))
    findings = await found(lambda notes: examine_token(notes, token, [source], config_for(source, tmp_path)))
    await source.close()
    assert "no groups: the token has no claim `groups`" in said(findings, "warn")
    assert "no roles: the token has no claim `realm_access.roles`" in said(findings, "warn")
    assert said(findings, "fail") == ""


@pytest.mark.parametrize(("budgets", "database"), [(True, True), (True, False), (False, False)])
async def test_a_budget_without_litellms_database_is_warned_of(budgets: bool, database: bool) -> None:
    facts = FACTS._replace(budgets=budgets, database=database)
    source = Litellm(LitellmSettings(master_key=SecretStr(facts.master_key)), "litellm")
    findings = await found(lambda notes: examine_source(notes, source, facts))
    assert ("warn" in {finding.level for finding in findings}) == (budgets and not database)
