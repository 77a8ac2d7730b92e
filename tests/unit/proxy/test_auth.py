"""The custom_auth hook: which source decides, what LiteLLM is told, what is refused and how."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request
from litellm.proxy import proxy_server
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth
from litellm.proxy.auth import user_api_key_auth as litellm_auth
from pydantic import SecretStr

from crawler.settings import Settings
from plugins.auth.litellm import Litellm, LitellmSettings
from plugins.core.errors import ConfigError, IdentityUnavailable, Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.identity_config import Allowance
from plugins.core.ports import IdentitySource
from plugins.proxy.auth import Authenticate, PrincipalAuth, Refusal, principal_of

MASTER_KEY = "sk-master-0123456789"


class Known(IdentitySource[Settings]):
    """Accepts every bearer that begins with its name; `<name>-bad` is refused."""

    def __init__(self, name: str, prefix: str = "") -> None:
        super().__init__(Settings(), name)
        self.prefix = prefix or name

    def accepts(self, credential: Credential) -> bool:
        return credential.bearer is not None and credential.bearer.get_secret_value().startswith(self.prefix)

    async def authenticate(self, credential: Credential) -> Principal:
        assert credential.bearer is not None
        if credential.bearer.get_secret_value().endswith("bad"):
            raise Unauthenticated("It is bad.")
        if credential.bearer.get_secret_value().endswith("broken"):
            raise RuntimeError("host 10.0.0.1")
        return Principal(
            source=self.name,
            subject="id-of-alice",
            username="alice",
            email="alice@example.test",
            groups=frozenset({"finance"}),
            token=credential.bearer,
        )


def request(**headers: str) -> Request:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "GET", "path": "/", "headers": sent, "client": ("127.0.0.1", 1)}
    )


def litellm_source() -> Litellm:
    return Litellm(LitellmSettings(master_key=SecretStr(MASTER_KEY)), "litellm")


async def signed_in(hook: Authenticate, key: str) -> PrincipalAuth:
    auth = await hook(request(), key)
    assert isinstance(auth, PrincipalAuth)
    return auth


async def refused(hook: Authenticate, key: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await hook(request(), key)
    return caught.value


async def test_the_first_source_that_accepts_decides() -> None:
    hook = Authenticate([Known("one", "k"), Known("two", "k")])
    assert principal_of(await signed_in(hook, "k-1")).source == "one"
    assert (await refused(hook, "k-bad")).message == "It is bad.", "and the next is not asked"


async def test_litellm_is_told_the_user_and_no_token() -> None:
    auth = await signed_in(Authenticate([Known("one")]), "one-secret-token")
    assert (auth.user_id, auth.user_email) == ("one/alice", "alice@example.test")
    assert auth.user_role == LitellmUserRoles.INTERNAL_USER
    assert auth.models == []
    for text in (repr(auth), str(auth), auth.model_dump_json(), str(auth.model_dump()), str(auth.metadata)):
        assert "secret-token" not in text
        assert "id-of-alice" not in text


async def test_every_token_of_a_user_counts_for_the_same_key_and_other_users_for_another() -> None:
    hook = Authenticate([Known("one"), Known("two")])
    first, again = await signed_in(hook, "one-token"), await signed_in(hook, "one-token-2")
    other = await signed_in(hook, "two-token")
    assert first.api_key == again.api_key == first.token
    assert first.api_key != other.api_key


async def test_a_copy_still_has_the_principal() -> None:
    auth = await signed_in(Authenticate([Known("one")]), "one-token")
    assert principal_of(auth.model_copy(update={"metadata": {}})).user_id == "one/alice"
    assert principal_of(UserAPIKeyAuth.model_validate(auth)).user_id == "one/alice"


async def test_the_first_allowance_that_names_the_caller_counts() -> None:
    hook = Authenticate(
        [Known("one"), Known("two")],
        [
            Allowance(subjects=["group:two/finance"], max_budget=1),
            Allowance(
                subjects=["group:one/finance"],
                user_role="proxy_admin_viewer",
                models=["small"],
                rpm_limit=1,
                tpm_limit=2,
                max_parallel_requests=3,
                max_budget=4.5,
                priority="high",
            ),
            Allowance(subjects=["*"], rpm_limit=99),
        ],
    )
    auth = await signed_in(hook, "one-token")
    assert auth.user_role == LitellmUserRoles.PROXY_ADMIN_VIEW_ONLY
    assert (auth.rpm_limit, auth.tpm_limit, auth.max_parallel_requests, auth.max_budget) == (1, 2, 3, 4.5)
    assert (auth.models, auth.metadata) == (["small"], {"priority": "high"})


async def test_a_short_subject_is_meant_for_the_only_source() -> None:
    hook = Authenticate([Known("one")], [Allowance(subjects=["user:alice"], rpm_limit=7)])
    assert (await signed_in(hook, "one-token")).rpm_limit == 7


@pytest.mark.parametrize(
    ("sources", "allowances"),
    [
        ([Known("one"), Known("one")], []),
        ([Known("litellm")], []),
        ([Known("one"), Known("two")], [Allowance(subjects=["user:alice"])]),
        ([Known("one")], [Allowance(subjects=["alice"])]),
    ],
)
def test_ambiguous_configuration_is_refused(sources: list[Known], allowances: list[Allowance]) -> None:
    with pytest.raises(ConfigError):
        Authenticate(sources, allowances)


@pytest.mark.parametrize(
    ("key", "status", "code", "words"),
    [
        ("", "401", "invalid_api_key", "Sign in"),
        ("nobody's", "401", "invalid_api_key", "not known"),
        ("eyJ.eyJ.abc", "401", "invalid_api_key", "another issuer"),
        ("one-bad", "401", "invalid_api_key", "It is bad"),
        ("one-broken", "503", "identity_unavailable", "cannot be checked"),
    ],
)
async def test_a_refusal_has_the_wire_body_and_leaks_nothing(
    key: str, status: str, code: str, words: str
) -> None:
    refusal = await refused(Authenticate([Known("one")]), key)
    assert refusal.code == status
    body = refusal.to_dict()
    assert set(body) == {"message", "type", "param", "code"}
    assert body["code"] == code
    assert words in body["message"]
    assert "10.0.0.1" not in str(body) + str(refusal.headers)
    assert ("WWW-Authenticate" in refusal.headers) == (status == "401")
    assert ("Retry-After" in refusal.headers) == (status == "503")


@pytest.mark.parametrize(
    ("sent", "kept"), [("call-1", True), ("a\nb", False), ("x" * 65, False), ("", False)]
)
async def test_a_refusal_carries_the_clients_request_id_where_it_is_one(sent: str, kept: bool) -> None:
    with pytest.raises(Refusal) as caught:
        await Authenticate([Known("one")])(request(**{"x-litellm-call-id": sent}), "")
    answered = caught.value.headers["x-litellm-call-id"]
    assert (answered == sent) == kept
    assert len(answered) > 5


@pytest.fixture
def without_database(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(proxy_server, "master_key", MASTER_KEY)
    monkeypatch.setattr(proxy_server, "prisma_client", None)
    return monkeypatch


async def test_without_a_database_only_the_master_key_goes_back_to_litellm(
    without_database: pytest.MonkeyPatch,
) -> None:
    hook = Authenticate([litellm_source()])
    assert await hook(request(), MASTER_KEY) == MASTER_KEY
    for key in ("sk-other", MASTER_KEY + "x", MASTER_KEY[:-1], "litellm_login_x"):
        assert (await refused(hook, key)).code == "401"
    without_database.setattr(proxy_server, "master_key", None)
    assert (await refused(hook, MASTER_KEY)).code == "401"


async def test_with_a_database_virtual_keys_go_back_to_litellm(without_database: pytest.MonkeyPatch) -> None:
    without_database.setattr(proxy_server, "prisma_client", object())
    hook = Authenticate([litellm_source()])
    assert await hook(request(), "sk-virtual") == "sk-virtual"
    assert (await refused(hook, "virtual")).code == "401"


@pytest.mark.parametrize("key", ["sk-unknown", "not-a-key"])
async def test_who_is_refused_is_logged_with_the_reason_and_without_the_key(
    without_database: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    caplog.set_level("INFO", "plugins")
    await refused(Authenticate([litellm_source()]), key)
    assert "sign-in refused: This key is not known." in caplog.text
    assert key not in caplog.text


async def test_nothing_is_handed_back_where_litellm_would_not_check_it(
    without_database: pytest.MonkeyPatch,
) -> None:
    without_database.setattr(litellm_auth, "enterprise_custom_auth", None)
    assert (await refused(Authenticate([litellm_source()]), MASTER_KEY)).code == "503"


def test_litellm_can_check_handed_back_keys_here() -> None:
    assert litellm_auth.enterprise_custom_auth is not None


def checked(**fields: Any) -> UserAPIKeyAuth:
    """What LiteLLM makes of a key that it checked."""
    auth = UserAPIKeyAuth(**fields)
    auth.via_virtual_key = True
    return auth


@pytest.mark.parametrize(
    ("auth", "subjects"),
    [
        (
            checked(api_key="litellm_proxy_master_key", user_id="default_user_id", user_role="proxy_admin"),
            {"user:litellm/proxy_admin", "role:litellm/proxy_admin"},
        ),
        (
            checked(api_key="sk-1", user_id="u1", team_id="t1", key_alias="ci", user_role="internal_user"),
            {"user:litellm/u1", "group:litellm/t1", "role:litellm/internal_user"},
        ),
        (checked(api_key="sk-1", key_alias="ci"), {"user:litellm/key:ci"}),
    ],
)
def test_a_key_that_litellm_checked_is_a_principal_of_the_source_litellm(
    auth: UserAPIKeyAuth, subjects: set[str]
) -> None:
    principal = principal_of(auth)
    assert principal.subjects == subjects | {"*"}
    assert principal.token is None


def test_a_key_without_user_and_alias_is_named_by_its_hash() -> None:
    auth = checked(api_key="sk-1")
    assert principal_of(auth).username == f"key-hash:{auth.token}"


@pytest.mark.parametrize(
    "auth",
    [
        UserAPIKeyAuth(),
        UserAPIKeyAuth(api_key="sk-1", user_id="default_user_id", user_role=LitellmUserRoles.PROXY_ADMIN),
        UserAPIKeyAuth(user_role=LitellmUserRoles.INTERNAL_USER_VIEW_ONLY),
        PrincipalAuth(user_id="one/alice"),
        checked(),
    ],
)
def test_who_did_not_sign_in_is_nobody(auth: UserAPIKeyAuth) -> None:
    with pytest.raises(Unauthenticated):
        principal_of(auth)


def test_who_was_let_in_because_the_database_is_down_is_nobody() -> None:
    with pytest.raises(IdentityUnavailable):
        principal_of(checked(api_key="failed", user_id="__db_unavailable_fallback__"))
