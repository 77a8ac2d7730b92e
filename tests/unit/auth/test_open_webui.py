"""Open WebUI's users behind its one key: who they become, and what a stranger, a thief or a fool gets."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from plugins.auth.open_webui import OpenWebui, OpenWebuiSettings
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from tests.support.issuer import b64
from tests.support.open_webui import HEADER, KEY, SECRET, plain_headers, user_token

DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


def at(**offsets: int) -> dict[str, Any]:
    """Claims with times, by their distance in seconds from now."""
    now = int(time.time())
    return {name: now + offset for name, offset in offsets.items()}


def signed(**settings: Any) -> OpenWebui:
    return OpenWebui(OpenWebuiSettings(**{"key": KEY, "jwt_secret": SECRET, **settings}), "webui")


def plain(**settings: Any) -> OpenWebui:
    return OpenWebui(OpenWebuiSettings(**{"key": KEY, "plain_headers": True, **settings}), "webui")


def sent(headers: dict[str, str] | str | None = None, key: str | None = KEY) -> Credential:
    """A request with the key; a text is the user token. Names arrive in lower case."""
    given = {HEADER: headers} if isinstance(headers, str) else headers or {}
    return Credential(
        bearer=SecretStr(key) if key is not None else None,
        headers={name.lower(): value for name, value in given.items()},
        peer="",
    )


async def sign_in(source: OpenWebui, headers: dict[str, str] | str) -> Principal:
    credential = sent(headers)
    assert source.accepts(credential)
    return await source.authenticate(credential)


async def refusal(source: OpenWebui, credential: Credential) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await source.authenticate(credential)
    return caught.value.message


@pytest.mark.parametrize("written", [KEY, f"sha256:{DIGEST}"])
async def test_the_person_that_open_webui_signed_for_is_the_principal(written: str) -> None:
    principal = await sign_in(signed(key=written), user_token("alice"))
    assert (principal.user_id, principal.subject) == ("webui/alice@example.test", "id-of-alice")
    assert (principal.email, principal.issuer) == ("alice@example.test", "open-webui")
    assert principal.subjects == {"*", "user:webui/alice@example.test"}
    assert principal.issued_at is not None
    for secret in (KEY, SECRET, user_token("alice")):
        assert secret not in f"{principal!r}{principal.model_dump_json()}"


async def test_groups_and_roles_come_from_the_address_and_from_open_webuis_role() -> None:
    source = signed(
        people=[
            {"email": "Alice@Example.test", "groups": ["/finance/eu"], "roles": ["auditor"]},
            {"email": "*@example.test", "groups": ["staff"]},
            {"email": "*@test", "groups": ["never"]},
            {"email": "*@evil.example.test", "groups": ["never"]},
            {"email": "bob@example.test", "groups": ["hr"]},
        ],
        roles={"admin": ["operator"], "user": ["reader"]},
    )
    alice = await sign_in(source, user_token("alice", email="aLICE@example.TEST"))
    assert (alice.groups, alice.roles) == (
        frozenset({"finance/eu", "staff"}),
        frozenset({"auditor", "reader"}),
    )
    carol = await sign_in(source, user_token("carol", role="admin"))
    assert (carol.groups, carol.roles) == (frozenset({"staff"}), frozenset({"operator"}))
    stranger = await sign_in(source, user_token("dora", email="dora@elsewhere.test", role="pending"))
    assert (stranger.groups, stranger.roles) == (frozenset(), frozenset())


async def test_an_administrator_of_open_webui_is_nobody_special_here_by_default() -> None:
    assert (await sign_in(signed(), user_token("root", role="admin"))).roles == frozenset()


async def test_the_name_is_the_address_in_lower_case_or_open_webuis_id() -> None:
    token = user_token("alice", email="Alice@Example.Test")
    assert (await sign_in(signed(), token)).username == "alice@example.test"
    by_id = await sign_in(signed(username_claim="sub"), token)
    assert (by_id.username, by_id.email) == ("id-of-alice", "alice@example.test")


@pytest.mark.parametrize(
    "email",
    [
        None,
        "",
        "alice",
        "@example.test",
        "alice@",
        "evil@x@example.test",
        "alice @example.test",
        "alice@example.test\n",
        "\u212aate@example.test",
        "älice@example.test",
        7,
        ["alice@example.test"],
        "a" * 250 + "@example.test",
    ],
)
async def test_an_unusable_address_names_nobody_and_matches_no_entry(email: object) -> None:
    token = user_token("alice", email=email)
    assert "no usable e-mail address" in await refusal(signed(), sent(token))
    people = [{"email": "*@example.test", "groups": ["staff"]}]
    by_id = await sign_in(signed(username_claim="sub", people=people), token)
    assert (by_id.username, by_id.email, by_id.groups) == ("id-of-alice", None, frozenset())


@pytest.mark.parametrize("headers", [{}, {HEADER: ""}, plain_headers("alice")])
async def test_the_key_without_a_user_token_says_what_to_set_in_open_webui(headers: dict[str, str]) -> None:
    message = await refusal(signed(), sent(headers))
    assert "ENABLE_FORWARD_USER_INFO_HEADERS=true" in message
    assert "FORWARD_USER_INFO_HEADER_JWT_SECRET" in message


async def test_plain_headers_beside_a_user_token_change_nothing() -> None:
    headers = plain_headers("bob", Role="admin") | {HEADER: user_token("alice")}
    principal = await sign_in(signed(roles={"admin": ["operator"]}), headers)
    assert (principal.username, principal.roles) == ("alice@example.test", frozenset())


@pytest.mark.parametrize(
    "key",
    [None, "", "sk-another-key-0123456789", KEY[:-1], KEY + "x", KEY.upper(), f"sha256:{DIGEST}", DIGEST],
)
async def test_without_the_service_key_the_headers_are_nobodys(key: str | None) -> None:
    for source in (signed(), signed(key=f"sha256:{DIGEST}"), plain()):
        credential = sent({HEADER: user_token("alice"), **plain_headers("alice")}, key)
        assert not source.accepts(credential)
        assert "not known" in await refusal(source, credential)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": -31, "iat": -331}, "has expired"),
        ({"iat": 120, "exp": 180}, "not a user token"),
        ({"nbf": 120}, "not a user token"),
        ({"exp": 301, "iat": 0}, "EXPIRES_SECONDS to at most 300"),
        ({"exp": 86400, "iat": 0}, "EXPIRES_SECONDS to at most 300"),
        ({"exp": 20, "iat": 20}, "not a user token"),
        ({"exp": 5, "iat": 10}, "not a user token"),
    ],
)
async def test_a_user_token_at_the_wrong_time_is_refused_with_the_reason(
    changed: dict[str, int], reason: str
) -> None:
    assert reason in await refusal(signed(), sent(user_token("alice", **at(**changed))))


@pytest.mark.parametrize(("kind", "reason"), [(float, "malformed"), (str, "not a user token")])
async def test_a_time_that_is_no_whole_number_is_refused(kind: type, reason: str) -> None:
    exp = kind(at(exp=60)["exp"])
    assert reason in await refusal(signed(), sent(user_token("alice", exp=exp)))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": None}, "not a user token"),
        ({"iat": None}, "not a user token"),
        ({"iss": None}, "not a user token"),
        ({"iss": "another"}, "not a user token"),
        ({"iss": ["open-webui"]}, "not a user token"),
        ({"aud": "another-service"}, "not a user token"),
        ({"sub": None}, "not a user token"),
        ({"sub": 7}, "not a user token"),
        ({"sub": ""}, "not a user token"),
        ({"sub": "a" * 256}, "did not say who is asking"),
        ({"exp": float("nan")}, "not a user token"),
    ],
)
async def test_a_user_token_with_wrong_claims_is_refused_with_the_reason(
    changed: dict[str, Any], reason: str
) -> None:
    assert reason in await refusal(signed(), sent(user_token("alice", **changed)))


async def test_clocks_may_be_off_by_the_leeway() -> None:
    late = user_token("alice", **at(iat=-320, exp=-20))
    assert await sign_in(signed(leeway_s=60), late)
    assert "has expired" in await refusal(signed(leeway_s=0), sent(late))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS512"},
        {"alg": "hs256"},
        {"alg": "RS256"},
        {"alg": None},
        {"alg": ["HS256"]},
        {"typ": "at+jwt"},
        {"typ": None},
        {"crit": ["exp"]},
        {"b64": False},
    ],
)
async def test_another_kind_of_token_is_refused_even_when_it_is_signed(header: dict[str, Any]) -> None:
    assert "not a user token" in await refusal(signed(), sent(user_token("alice", header=header)))


async def test_an_unsigned_token_is_refused() -> None:
    body = user_token("alice", header={"alg": "none"}).rpartition(".")[0]
    assert "not a user token" in await refusal(signed(), sent(f"{body}."))
    assert "another secret" in await refusal(signed(), sent(user_token("alice").rpartition(".")[0] + "."))


async def test_a_token_signed_with_anything_but_the_secret_is_refused() -> None:
    for secret in (KEY, SECRET + "x", SECRET[:-1], "", f"sha256:{DIGEST}"):
        message = await refusal(signed(), sent(user_token("alice", secret=secret)))
        assert "another secret" in message
        assert SECRET not in message


async def test_a_changed_token_is_refused() -> None:
    head, _, mac = user_token("bob").split(".")
    forged = user_token("alice", secret="another-secret-0123456789-0123456789").split(".")[1]
    assert "another secret" in await refusal(signed(), sent(f"{head}.{forged}.{mac}"))


async def test_a_longer_mac_of_the_same_secret_is_refused() -> None:
    head = b64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    payload = user_token("alice").split(".")[1]
    mac = hmac.new(SECRET.encode(), f"{head}.{payload}".encode(), hashlib.sha512).digest()
    assert "another secret" in await refusal(signed(), sent(f"{head}.{payload}.{b64(mac)}"))


async def test_a_claim_that_occurs_twice_is_refused() -> None:
    claims = {"sub": "id", "iss": "open-webui", **at(iat=0, exp=60), "email": "bob@example.test"}
    twice = json.dumps(claims)[:-1] + ', "email": "alice@example.test"}'
    assert "malformed" in await refusal(signed(), sent(user_token(payload=twice.encode())))


@pytest.mark.parametrize(
    "value", ["a", "a.b", "a.b.c", "...", "e30.e30.e30", "ä.ö.ü", "W10.e30.", "x" * 17_000]
)
async def test_garbage_is_refused(value: str) -> None:
    assert "Open WebUI" in await refusal(signed(), sent(value))


async def test_a_header_that_came_twice_is_refused() -> None:
    both = f"{user_token('alice')}, {user_token('bob')}"
    assert "came twice" in await refusal(signed(), sent(both))
    for name in ("Id", "Email", "Role"):
        headers = plain_headers("alice")
        headers[f"X-OpenWebUI-User-{name}"] += ", other"
        assert "came twice" in await refusal(plain(), sent(headers))


async def test_plain_headers_count_only_where_the_settings_say_so() -> None:
    source = plain(people=[{"email": "*@example.test", "groups": ["staff"]}], roles={"user": ["reader"]})
    principal = await sign_in(source, plain_headers("alice", Email="Alice@example.test"))
    assert (principal.user_id, principal.subject) == ("webui/alice@example.test", "id-of-alice")
    assert (principal.groups, principal.roles) == (frozenset({"staff"}), frozenset({"reader"}))
    assert "ENABLE_FORWARD_USER_INFO_HEADERS=true" in await refusal(source, sent())
    assert "did not say who is asking" in await refusal(source, sent({HEADER: user_token("alice")}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "sk-short"},
        {"key": "no-prefix-0123456789"},
        {"key": "sha256:abc"},
        {"jwt_secret": None},
        {"jwt_secret": "x" * 31},
        {"jwt_secret": ""},
        {"plain_headers": True},
        {"leeway_s": 301},
        {"username_claim": "name"},
        {"people": [{"email": "*"}]},
        {"people": [{"email": "*@*"}]},
        {"people": [{"email": "a*@example.test"}]},
        {"people": [{"email": "alice"}]},
        {"people": [{"email": "älice@example.test"}]},
    ],
)
def test_unsafe_settings_are_refused_and_their_secrets_not_shown(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        signed(**wrong)
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)


def test_settings_and_source_do_not_show_their_secrets() -> None:
    source = signed()
    assert KEY not in f"{source.settings!r}{source.settings}{vars(source)}"
    assert SECRET not in f"{source.settings!r}{source.settings}{vars(source)}"
