"""Whether a revoked token is refused where the issuer is asked, how often it is asked, and if it is down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from plugins.auth import _answers
from plugins.auth.oidc import Oidc, OidcSettings
from plugins.core.errors import IdentityUnavailable
from tests.support.issuer import Issuer, issuer
from tests.support.oidc import bearer, refusal, sign_in, source_for

CLIENT = {"client_id": "litellm", "client_secret": "litellm-secret"}


@pytest.fixture
def realm() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture
async def source(realm: Issuer) -> AsyncIterator[Oidc]:
    made = source_for(realm, **CLIENT, introspect={"every_s": 600})
    yield made
    await made.close()


def asked(realm: Issuer) -> int:
    return len([path for path in realm.requests if path.endswith("/introspect")])


def revoke(realm: Issuer) -> None:
    realm.overrides["introspect"] = (200, {"active": False})


async def test_without_introspection_the_issuer_is_not_asked(realm: Issuer) -> None:
    source = source_for(realm, **CLIENT)
    revoke(realm)
    assert await sign_in(source, realm.token())
    assert asked(realm) == 0
    await source.close()


async def test_a_token_is_asked_about_once_within_its_time(source: Oidc, realm: Issuer) -> None:
    token = realm.token()
    for _ in range(5):
        assert (await sign_in(source, token)).username == "alice"
    assert asked(realm) == 1


async def test_a_revoked_token_is_refused_with_what_to_do(source: Oidc, realm: Issuer) -> None:
    revoke(realm)
    assert "was revoked" in await refusal(source, realm.token())


async def test_a_revocation_takes_effect_when_the_time_is_over(realm: Issuer) -> None:
    source = source_for(realm, **CLIENT, introspect={"every_s": 0.05})
    token = realm.token()
    assert await sign_in(source, token)
    revoke(realm)
    async with asyncio.timeout(10):
        while True:
            before = asked(realm)
            try:
                await sign_in(source, token)
            except Exception:  # noqa: BLE001 - which one, the next line says
                break
            assert asked(realm) == before, "who is let in was not asked about anew"
            await asyncio.sleep(0.01)
    assert "was revoked" in await refusal(source, token)
    await source.close()


@pytest.mark.parametrize("typ", ["ID", "Refresh", None])
async def test_an_answer_about_another_kind_of_token_lets_nobody_in(
    source: Oidc, realm: Issuer, typ: str | None
) -> None:
    realm.overrides["introspect"] = (200, {"active": True, "typ": typ})
    assert "was revoked" in await refusal(source, realm.token())


async def test_many_requests_with_one_token_share_one_question(source: Oidc, realm: Issuer) -> None:
    token = realm.token()
    await asyncio.gather(*(sign_in(source, token) for _ in range(20)))
    assert asked(realm) == 1


async def test_many_people_who_come_at_once_are_all_let_in(
    realm: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_answers, "BURST", 1)
    source = source_for(realm, **CLIENT, introspect={"every_s": 600})
    people = await asyncio.gather(*(sign_in(source, realm.token(jti=str(n))) for n in range(5)))
    assert {person.username for person in people} == {"alice"}
    assert asked(realm) == 5
    await source.close()


async def test_tokens_with_a_common_beginning_are_asked_about_apart(source: Oidc, realm: Issuer) -> None:
    now = int(time.time())
    times: dict[str, Any] = {"iat": now, "exp": now + 60, "jti": "1" * 5000}
    first, second = (realm.token(**times, zzz=end) for end in ("1", "2"))
    assert first[:5000] == second[:5000]
    assert await sign_in(source, first)
    revoke(realm)
    assert "was revoked" in await refusal(source, second)


async def test_a_forged_token_is_refused_without_asking(source: Oidc, realm: Issuer) -> None:
    assert await refusal(source, realm.token()[:-8] + "AAAAAAAA")
    assert await refusal(source, realm.token(aud="account"))
    assert asked(realm) == 0


@pytest.mark.parametrize(
    "answer", [(503, {"error": "x"}), (401, {"error": "unauthorized_client"}), (403, {}), (400, {})]
)
async def test_while_the_issuer_cannot_answer_nobody_new_is_let_in(
    source: Oidc, realm: Issuer, answer: tuple[int, dict[str, str]]
) -> None:
    known, new = realm.token(jti="1"), realm.token(jti="2")
    assert await sign_in(source, known)
    realm.overrides["introspect"] = answer
    assert await sign_in(source, known), "asked about within its time"
    with pytest.raises(IdentityUnavailable):
        await source.authenticate(bearer(new))
    realm.overrides.clear()
    assert await sign_in(source, new), "a failure is not remembered"


async def test_a_request_that_is_given_up_does_not_end_anothers_question(source: Oidc, realm: Issuer) -> None:
    token = realm.token()
    await source.ping()
    realm.open.clear()
    first, second = (asyncio.create_task(sign_in(source, token)) for _ in range(2))
    for _ in range(1000):
        if asked(realm):
            break
        await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    realm.open.set()
    assert await second
    assert asked(realm) == 1


async def test_answers_are_kept_of_the_latest_tokens_only(
    realm: Issuer, source: Oidc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_answers, "MAX_TOKENS", 2)
    tokens = [realm.token(jti=str(n)) for n in range(3)]
    for token in tokens:
        await sign_in(source, token)
    await sign_in(source, tokens[2])
    assert asked(realm) == 3
    await sign_in(source, tokens[0])
    assert asked(realm) == 4


@pytest.mark.parametrize("introspect", ["always", {"every_s": 0}, {"every_s": 7200}, {}, 30])
def test_other_settings_are_refused(introspect: object) -> None:
    with pytest.raises(ValidationError):
        OidcSettings(
            **{"issuer": "https://x.test/realms/a", "audience": "litellm", **CLIENT, "introspect": introspect}
        )


def test_introspection_needs_a_client() -> None:
    with pytest.raises(ValidationError, match="needs `client_id`"):
        OidcSettings.model_validate(
            {"issuer": "https://x.test/realms/a", "audience": "litellm", "introspect": {"every_s": 30}}
        )
