"""Keys: those of services, and LiteLLM's own."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from plugins.auth.api_keys import ApiKeys, ApiKeysSettings
from plugins.auth.litellm import HandBack, Litellm, LitellmSettings
from plugins.core.errors import ConfigError, Unauthenticated
from plugins.core.identity import Credential

KEY = "sk-local-0123456789abcdef"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


def bearer(key: str | None) -> Credential:
    return Credential(bearer=SecretStr(key) if key is not None else None, headers={}, peer="")


def keys(*entries: dict[str, Any]) -> ApiKeys:
    return ApiKeys(ApiKeysSettings.model_validate({"keys": list(entries)}), "local")


@pytest.mark.parametrize("written", [KEY, f"sha256:{DIGEST}"])
async def test_a_key_signs_in_the_user_that_it_is_bound_to(written: str) -> None:
    source = keys({"key": written, "user": "alice", "groups": ["/finance"], "roles": ["reader"]})
    assert source.accepts(bearer(KEY))
    principal = await source.authenticate(bearer(KEY))
    assert principal.subjects == {"*", "user:local/alice", "group:local/finance", "role:local/reader"}
    assert KEY not in repr(principal)


@pytest.mark.parametrize("other", [KEY + "x", KEY[:-1], KEY.upper(), "", None, DIGEST])
async def test_another_key_is_left_to_other_sources(other: str | None) -> None:
    source = keys({"key": KEY, "user": "alice"})
    assert not source.accepts(bearer(other))
    with pytest.raises(Unauthenticated):
        await source.authenticate(bearer(other))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"key": "w3ak", "user": "a"}],
        [{"key": "sk-w3ak", "user": "a"}],
        [{"key": "long-enough-but-logged-as-it-is", "user": "a"}],
        [{"key": "sha256:abc", "user": "a"}],
        [{"key": KEY, "user": ""}],
        [{"key": KEY, "user": "a"}, {"key": KEY, "user": "b"}],
        [
            {"key": KEY, "user": "a"},
            {"key": f"sha256:{DIGEST}", "user": "b"},
        ],
    ],
)
def test_weak_and_ambiguous_keys_are_refused_without_being_shown(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError) as caught:
        keys(*entries)
    assert KEY not in str(caught.value)
    assert "w3ak" not in str(caught.value)


async def test_a_hashed_key_that_litellm_would_log_is_refused() -> None:
    key = "long-enough-but-logged-as-it-is"
    source = keys({"key": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}", "user": "alice"})
    with pytest.raises(Unauthenticated, match="must begin with `sk-`"):
        await source.authenticate(bearer(key))


@pytest.mark.parametrize("key", ["sk-virtual", "litellm_login_abc", "the-master-key-itself"])
async def test_litellms_own_keys_are_handed_back(key: str) -> None:
    source = Litellm(LitellmSettings(master_key=SecretStr("the-master-key-itself")), "litellm")
    assert source.accepts(bearer(key))
    with pytest.raises(HandBack):
        await source.authenticate(bearer(key))


async def test_what_is_not_litellms_is_not_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    source = Litellm(LitellmSettings(), "litellm")
    for key in ("eyJ.eyJ.x", "", "SK-x", None):
        assert not source.accepts(bearer(key))
        with pytest.raises(Unauthenticated):
            await source.authenticate(bearer(key))


def test_the_litellm_source_cannot_be_renamed() -> None:
    with pytest.raises(ConfigError, match="cannot be renamed"):
        Litellm(LitellmSettings(), "gateway")
