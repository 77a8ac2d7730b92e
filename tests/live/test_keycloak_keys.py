"""A real Keycloak's keys: they change, they are asked for rarely, and the server may be away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from joserfc import jwk

from deploy.keycloak.keycloak import Server
from tests.live.conftest import RunProxy
from tests.live.keycloak_callers import (
    EVERYONE,
    FINANCE,
    WRITER,
    config,
    get,
    halted,
    refusal,
    source,
    tools,
    until,
)
from tests.live.keycloak_realm import Realm, claims_of, signed, throwaway
from tests.support.proxy import Proxy

ALL = EVERYONE | FINANCE | WRITER


@pytest.fixture(scope="module")
def partner(keycloak: Server) -> Iterator[Realm]:
    """A second realm with the same people, whose keys the proxy asks for at its usual pace."""
    with throwaway(keycloak) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(realm: Realm, partner: Realm, run_proxy: RunProxy) -> Proxy:
    hasty = source(realm, jwks_cache_s=1, jwks_refetch_s=0.2, timeout_s=1)
    return run_proxy(config(hasty, source(partner, "partner")))


def test_people_of_equal_names_in_two_realms_are_different_people(
    proxy: Proxy, realm: Realm, partner: Realm
) -> None:
    ours, theirs = realm.tokens("alice")["access_token"], partner.tokens("alice")["access_token"]
    assert tools(proxy, ours) == ALL
    assert tools(proxy, theirs) == EVERYONE, "the rights name the first realm"
    assert tools(proxy, ours) == ALL


def test_unknown_keys_do_not_make_us_hammer_the_server(proxy: Proxy, partner: Realm) -> None:
    log = partner.server.log
    if log is None:
        pytest.skip("the requests to this Keycloak cannot be counted")
    asked = f"/realms/{partner.name}/protocol/openid-connect/certs"

    def times() -> int:
        return log.read_text(encoding="utf-8", errors="replace").count(asked)

    real = partner.tokens("alice")["access_token"]
    until(lambda: get(proxy, real).status_code, lambda status: status == 200)
    before = until(times, bool)
    stranger = jwk.RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})
    for number in range(60):
        answer = get(proxy, signed(claims_of(real), stranger, f"stranger-{number}"))
        assert answer.status_code == 401
        assert "does not publish" in answer.text
    assert tools(proxy, real) == EVERYONE
    assert times() - before <= 3, "one within ten seconds"


def test_one_realms_key_signs_for_no_other_realm(proxy: Proxy, realm: Realm, partner: Realm) -> None:
    key = partner.own_key()
    claims = claims_of(realm.tokens("alice")["access_token"])
    assert "does not publish" in refusal(proxy, signed(claims, key))
    known = realm.published()
    for kid in [one["kid"] for one in known if one["use"] == "sig"]:
        assert "signature is wrong" in refusal(proxy, signed(claims, key, kid))


def test_a_key_for_encryption_signs_nobody_in(proxy: Proxy, realm: Realm) -> None:
    [kid] = [key["kid"] for key in realm.published() if key["use"] == "enc"]
    mine = jwk.RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})
    claims = claims_of(realm.tokens("alice")["access_token"])
    assert "does not publish" in refusal(proxy, signed(claims, mine, kid))


def test_an_old_key_counts_while_it_is_published_and_no_longer(proxy: Proxy, realm: Realm) -> None:
    old = realm.tokens("alice")["access_token"]
    assert tools(proxy, old) == ALL
    [former] = realm.key_ids()
    realm.add_key(300)
    new = realm.tokens("alice")["access_token"]
    until(lambda: get(proxy, new).status_code, lambda status: status == 200)
    assert tools(proxy, old) == ALL
    realm.change_key(former, active="false")
    assert tools(proxy, old) == tools(proxy, new) == ALL, "passive keys are published, too"
    realm.admin.delete_component(former)
    until(lambda: get(proxy, old).status_code, lambda status: status == 401)
    assert "does not publish" in refusal(proxy, old)
    assert tools(proxy, new) == ALL


def test_while_keycloak_is_away_only_known_keys_go_on_and_nobody_else_is_let_in(
    proxy: Proxy, realm: Realm
) -> None:
    known = realm.tokens("alice")["access_token"]
    until(lambda: get(proxy, known).status_code, lambda status: status == 200)
    foreign = realm.tokens(client="other-app")["access_token"]
    key = realm.own_key()
    fresh = signed(claims_of(known), key)
    failures = proxy.log.count("its keys could not be fetched")
    with halted(realm.server):
        until(
            lambda: (get(proxy, known).status_code, proxy.log.count("its keys could not be fetched")),
            lambda seen: seen[0] != 200 or seen[1] > failures,
        )
        assert tools(proxy, known) == ALL, "its key is known, and old by now"
        message = refusal(proxy, fresh, 503)
        assert message == "Your sign-in cannot be checked at the moment. Try again in a few seconds."
        answer = get(proxy, fresh)
        assert answer.headers["retry-after"]
        assert realm.server.url not in answer.text
        assert "signature is wrong" in refusal(proxy, known[:-8] + "AAAAAAAA")
        assert "not for this service" in refusal(proxy, foreign)
    until(lambda: get(proxy, fresh).status_code, lambda status: status == 200)
    assert tools(proxy, known) == tools(proxy, fresh) == ALL


def test_a_proxy_that_starts_while_keycloak_is_away_lets_people_in_when_it_is_back(
    realm: Realm, run_proxy: RunProxy
) -> None:
    token = realm.tokens("alice")["access_token"]
    with halted(realm.server):
        early = run_proxy(config(source(realm, jwks_refetch_s=0.2, timeout_s=1)))
        assert refusal(early, token, 503)
    until(lambda: get(early, token).status_code, lambda status: status == 200)
    assert tools(early, token) == ALL
