"""What the doctor says of a real Keycloak and of a real Milvus server with authorization on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from crawler.store import Store
from crawler.stores.milvus import Milvus
from plugins.auth.oidc import Oidc, OidcSettings
from plugins.bundle.doctor.findings import Finding
from plugins.bundle.doctor.identity import LitellmFacts, examine_source
from plugins.bundle.doctor.store import examine_store
from plugins.bundle.doctor.token import examine_token
from plugins.core.config import Config
from plugins.core.identity_config import IdentityConfig, Source
from tests.live.keycloak_realm import CA_FILE, SECRETS, Realm
from tests.live.milvus import Server, milvus
from tests.support.doctor import found, said

__all__ = ["milvus"]

FACTS = LitellmFacts(master_key="sk-master-0123456789abcdef", weakness=None, database=False)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(folder=tmp_path, identity=IdentityConfig(sources=[Source(use="oidc", name="keycloak")]))


def source_for(realm: Realm, **settings: Any) -> Oidc:
    own: dict[str, Any] = {"issuer": realm.url, "audience": "litellm", "ca_file": CA_FILE}
    client = {"client_id": "litellm", "client_secret": SECRETS["litellm"]}
    return Oidc(OidcSettings(**{**own, **client, **settings}), "keycloak")


async def of_source(source: Oidc) -> list[Finding]:
    findings = await found(lambda notes: examine_source(notes, source, FACTS))
    await source.close()
    return findings


async def test_a_keycloak_that_is_set_up_right_passes(realm: Realm) -> None:
    findings = await of_source(source_for(realm, directory=True))
    assert said(findings, "fail") == ""
    for line in (
        f"{realm.url} answers",
        "the clocks agree",
        "1 signing key: RSA RS256",
        "1 more not for signatures",
        "the client `litellm` is accepted, and may introspect tokens",
        "it may list users, ",
    ):
        assert line in said(findings, "ok"), findings


async def test_what_keycloak_refuses_its_client_is_told_apart(realm: Realm) -> None:
    wrong = await of_source(source_for(realm, client_secret="not-the-secret-of-it"))
    assert "Keycloak refuses the client `litellm` (401)" in said(wrong, "fail")
    gone = await of_source(source_for(realm, issuer=f"{realm.url}-not"))
    assert "answers 404" in said(gone, "fail")
    settings = {"client_id": "ingest", "client_secret": SECRETS["ingest"], "directory": True}
    unable = await of_source(source_for(realm, **settings))
    assert "the roles `view-users` and `view-realm`" in said(unable, "fail")


async def test_real_tokens_are_explained(realm: Realm, config: Config) -> None:
    tokens = realm.tokens("alice")
    source = source_for(realm)

    async def explained(token: str) -> list[Finding]:
        return await found(lambda notes: examine_token(notes, SecretStr(token), [source], config))

    good = await explained(tokens["access_token"])
    identity = await explained(tokens["id_token"])
    other = await explained(realm.tokens("alice", "other-app")["access_token"])
    await source.close()
    assert said(good, "fail") == ""
    assert "groups from the claim `groups`: finance" in said(good, "ok")
    assert "typ is `ID`" in said(identity, "fail")
    assert "wanted is litellm" in said(other, "fail")


# --- Milvus ----------------------------------------------------------------------------------------


def row(name: str, dimension: int = 8, model: str = "local/minilm") -> dict[str, Any]:
    fixed = {"id": "vs_1", "state": "ready", "adopted": None, "embedding_model": model}
    return {**fixed, "name": name, "store_name": name, "dimension": dimension}


async def of_store(store: Store[Any], config: Config, *rows: dict[str, Any]) -> list[Finding]:
    findings = await found(lambda notes: examine_store(notes, store, config, rows, ["local/minilm"]))
    await store.close()
    return findings


@pytest.fixture
async def handbook(milvus: Server) -> str:
    name = f"{milvus.prefix}handbook"
    store = Milvus(milvus.settings)
    await store.create(name, dimension=8, metric="COSINE", retrieval="dense")
    await store.close()
    return name


async def test_a_server_and_its_collections_are_tried(milvus: Server, handbook: str, config: Config) -> None:
    rows = row(handbook), row(handbook, 16), row(f"{milvus.prefix}gone")
    findings = await of_store(Milvus(milvus.settings), config, *rows)
    assert "server, version " in said(findings, "ok")
    assert "the service's credential may create, and has all rights" in said(findings, "ok")
    assert f"collection `{handbook}` is there, with vectors of 8" in said(findings, "ok")
    failures = said(findings, "fail").splitlines()
    assert [line.partition(":")[0] for line in failures] == [
        f"collection `{handbook}`",
        f"collection `{milvus.prefix}gone`",
    ]


async def test_a_service_that_may_do_too_little_is_told(
    milvus: Server, handbook: str, config: Config
) -> None:
    user, _, password = milvus.person("narrow").partition(":")
    own = milvus.settings.model_copy(update={"user": user, "password": SecretStr(password)})
    narrow = await of_store(Milvus(own), config, row(handbook))
    assert "the service" in said(narrow, "warn")
    assert f"collection `{handbook}`: the service may not search it -> Grant" in said(narrow, "fail")
    wrong = own.model_copy(update={"password": SecretStr("not-the-password")})
    refused = await of_store(Milvus(wrong), config)
    assert "it refuses the service's credential" in said(refused, "fail")
    down = own.model_copy(update={"uri": "http://127.0.0.1:1", "timeout_s": 5.0})
    unreachable = await of_store(Milvus(down), config)
    assert "it cannot be reached" in said(unreachable, "fail")
    assert password not in str(narrow + refused + unreachable)
