"""`python -m plugins doctor` against set-ups that are right and that are not.

As a process, and where it is no more than another set-up, as a function: in a tenth of the time.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import insert

from crawler.stores import LiteSupervisor
from crawler.stores.milvus import Milvus, MilvusSettings
from plugins.__main__ import main
from plugins.collections import tables
from plugins.collections.database import Database, database_url, migrate
from plugins.core.config import StorageConfig
from tests.support.issuer import Issuer, issuer
from tests.support.proxy import ROOT, STARTUP, free_port

MASTER_KEY = "sk-master-key-of-the-doctor-0123456789"
ALICE_KEY = "sk-alice-key-of-the-doctor-0123456789"
PROVIDER_KEY = "provider-key-of-the-doctor-0123456789"
STORE_CREDENTIAL = "alice:milvus-password-of-alice"
SECRETS = (MASTER_KEY, ALICE_KEY, PROVIDER_KEY, STORE_CREDENTIAL)
LIMIT_S = 180

Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def realm() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


def model(name: str, info: Mapping[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": params, "model_info": dict(info or {})}


EXTRACTIVE = model("extractive", {"mode": "chat", "rag": True}, model="local/extractive")
MINILM = model("local/minilm", {"mode": "embedding", "output_vector_size": 384}, model="local/minilm")


class Setup:
    """An installation in a folder."""

    def __init__(self, folder: Path, realm: Issuer) -> None:
        self.folder = folder
        self.identity: dict[str, Any] = {
            "sources": [
                {"use": "oidc", "name": "keycloak", "issuer": realm.url, "audience": "litellm"},
                {"use": "api_keys", "name": "local", "keys": [{"key": ALICE_KEY, "user": "alice"}]},
                {"use": "litellm"},
            ],
            "allowances": [
                {"subjects": ["group:keycloak/hr"], "rpm_limit": 5},
                {"subjects": ["role:keycloak/reader"], "rpm_limit": 60},
            ],
        }
        self.policy: list[dict[str, Any]] = [{"names": "fin-*", "query": ["group:keycloak/finance"]}]
        self.storage: dict[str, Any] = {"data_dir": str(folder / "data")}
        self.litellm: dict[str, Any] = {
            "model_list": [EXTRACTIVE, MINILM],
            "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
            "general_settings": {
                "master_key": "os.environ/LITELLM_MASTER_KEY",
                "custom_auth": "plugins.entry.authenticate",
                "custom_auth_run_common_checks": True,
            },
        }
        self.environment = {"LITELLM_MASTER_KEY": MASTER_KEY}

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def write(self) -> None:
        config = self.folder / "config"
        (config / "prompts").mkdir(parents=True, exist_ok=True)
        (config / "prompts" / "answer.md").write_text("Answer.", encoding="utf-8")
        content = {"identity": self.identity, "collections": {"policy": self.policy}, "storage": self.storage}
        tools = {"tools": [{"use": "search_documents", "allow": ["role:keycloak/reader"]}]}
        (config / "all.yaml").write_text(yaml.safe_dump({**content, **tools}), encoding="utf-8")
        (self.folder / "litellm_config.yaml").write_text(yaml.safe_dump(self.litellm), encoding="utf-8")

    def doctor(self, *arguments: str) -> Ran:
        return self.examined(lambda: self.as_process(*arguments))

    def examined(self, doctor: Callable[[], Ran]) -> Ran:
        """Run it; whatever it finds, nothing on disk is changed and no secret is printed."""
        self.write()
        before = state(self.folder)
        ran = doctor()
        assert state(self.folder) == before, "something was changed"
        for secret in (*SECRETS, "eyJ"):
            assert secret not in ran.stdout + ran.stderr
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran

    def as_process(self, *arguments: str) -> Ran:
        return subprocess.run(
            [sys.executable, "-m", "plugins", "doctor", *arguments],
            env={
                "PATH": os.environ["PATH"],
                # onnxruntime keeps an id of the machine there
                "HOME": str(self.folder.parent),
                "PYTHONPATH": f"{ROOT}{os.pathsep}{STARTUP}",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                **self.environment,
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file with its mode, time of change and content; sockets by their mode alone."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            0 if path.is_dir() else path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


def lines(ran: Ran, level: str) -> str:
    return "\n".join(line for line in ran.stdout.splitlines() if line.startswith(f"{level} "))


async def with_data(setup: Setup, dimension: int = 384) -> None:
    """A data directory with a database of one collection."""
    setup.data.mkdir(mode=0o700)
    url = database_url(StorageConfig(data_dir=setup.data))
    migrate(url)
    database = Database(url)
    texts = ("description", "pipeline", "created_by")
    async with database.write() as connection:
        await connection.execute(
            insert(tables.collections).values(
                id="vs_1",
                name="handbook",
                state="ready",
                kind="bundle",
                metadata={},
                embedding_model="local/minilm",
                dimension=dimension,
                metric="COSINE",
                retrieval="hybrid",
                store_name="c_handbook",
                created_at=time.time(),
                written_at=0,
                **dict.fromkeys(texts, ""),
            )
        )
    await database.close()


@pytest.fixture
def setup(tmp_path: Path, realm: Issuer) -> Setup:
    return Setup(tmp_path, realm)


@pytest.fixture
def within(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ran]]:
    """The same command in this process."""

    def run(*arguments: str) -> Ran:
        monkeypatch.chdir(setup.folder)
        monkeypatch.delenv("COLLECTIONS_CONFIG", raising=False)
        monkeypatch.setattr(sys, "argv", ["plugins", "doctor", "--no-models", *arguments])
        for name, value in setup.environment.items():
            monkeypatch.setenv(name, value)

        def doctor() -> Ran:
            status = main()
            return Ran(arguments, status, *capsys.readouterr())

        return setup.examined(doctor)

    yield run
    logging.disable(logging.NOTSET)


@pytest.fixture
def with_token(setup: Setup, within: Callable[..., Ran]) -> Callable[[str], Ran]:
    def run(token: str) -> Ran:
        file = setup.folder / "token.txt"
        file.write_text(f"{token}\n", encoding="utf-8")
        return within("--token-file", str(file))

    return run


async def test_a_set_up_that_is_right_passes(setup: Setup, realm: Issuer) -> None:
    await with_data(setup)
    directory = setup.data / "store"
    supervisor = LiteSupervisor(directory)
    supervisor.start()
    try:
        store = Milvus(MilvusSettings(uri=str(directory)))
        await store.create("c_handbook", dimension=384, metric="COSINE", retrieval="hybrid")
        await store.close()
        ran = setup.doctor()
    finally:
        supervisor.stop()
    assert ran.returncode == 0, ran.stdout
    for found in (
        f"{realm.url} answers, and its discovery document names the same issuer",
        f"1 signing key: RSA RS256 kid {realm.keys[0].kid}",
        "(`leeway_s` is 30)",
        "1 key of 1 user: alice",
        "the master key is set",
        "its tables are of this version",
        "it has 1 collection",
        "SQLite finds it whole",
        "can be written, and is for its owner only",
        "collection `handbook` is there, with vectors of 384, and can be searched",
        "gives vectors of 384",
        "answers, and calls tools",
    ):
        assert found in lines(ran, "ok"), ran.stdout
    assert lines(ran, "warn") == ""
    assert ran.stdout.splitlines()[-1].endswith("0 to look at, 0 failed.")


async def test_each_part_that_is_broken_is_named_and_the_others_are_examined(setup: Setup) -> None:
    await with_data(setup, dimension=8)
    port = free_port()
    broken = f"http://127.0.0.1:{port}"
    setup.identity["sources"][0]["issuer"] = f"{broken}/realms/none"
    setup.environment["LITELLM_MASTER_KEY"] = "sk-1234"
    tools_refused = model("toolless", {"mode": "chat", "rag": True}, model="openai/x", mock_response="hi")
    gone = model("gone", model="openai/x", api_base=f"{broken}/v1", api_key=PROVIDER_KEY)
    unset = model("unset", model="openai/x", api_key="os.environ/NOT_SET_ANYWHERE")
    small = model("small", {"mode": "embedding", "output_vector_size": 100}, model="local/minilm")
    setup.litellm["model_list"] = [tools_refused, gone, unset, small, EXTRACTIVE]
    setup.litellm["router_settings"] = {
        "redis_host": "127.0.0.1",
        "redis_port": port,
        "redis_password": PROVIDER_KEY,
    }
    ran = setup.doctor()
    assert ran.returncode == 1
    for found in (
        f"{broken}/realms/none cannot be reached: the connection is refused  -> Check `issuer`",
        "the master key is publicly known  -> Set LITELLM_MASTER_KEY",
        "redis                   does not answer: it cannot be reached",
        "model gone              does not answer: ",
        "model unset             the environment variable NOT_SET_ANYWHERE is not set",
        "model small             gives vectors of 384, and `model_info.output_vector_size` is 100",
        "the embedding model `local/minilm` of the collection `handbook` is not in model_list",
    ):
        assert found in lines(ran, "fail"), ran.stdout
    assert "model toolless          answers, and did not call the tool" in lines(ran, "warn")
    assert "model extractive        answers, and calls tools" in lines(ran, "ok")


def test_what_the_first_start_makes_is_no_failure(within: Callable[..., Ran]) -> None:
    ran = within("--json")
    answer = json.loads(ran.stdout)
    assert (ran.returncode, answer["ok"]) == (0, True)
    found = {(finding["level"], finding["part"]) for finding in answer["findings"]}
    assert {("warn", "data directory"), ("warn", "database"), ("warn", "vector store")} <= found
    assert not any(finding["part"].startswith("model ") for finding in answer["findings"])


def test_mistakes_of_the_configuration_do_not_hide_the_rest(setup: Setup, within: Callable[..., Ran]) -> None:
    setup.storage["data_dir"] = str(setup.folder / "config" / "all.yaml")
    setup.policy.append({"names": "*", "query": ["finance"]})
    setup.litellm["general_settings"].pop("custom_auth")
    ran = within()
    assert ran.returncode == 1
    for found in (
        "collections.policy[1].query[0]: `finance` is not a subject",
        "general_settings.custom_auth: must be plugins.entry.authenticate",
        "all.yaml is no directory",
    ):
        assert found in lines(ran, "fail"), ran.stdout
    assert "signing key" in lines(ran, "ok")


def test_a_good_token_is_explained_down_to_what_it_may_do(
    setup: Setup, realm: Issuer, with_token: Callable[[str], Ran]
) -> None:
    setup.identity["sources"][0]["store_credential_claim"] = "milvus"
    ran = with_token(realm.token("alice", milvus=STORE_CREDENTIAL, exp=int(time.time()) + 600))
    assert ran.returncode == 0, ran.stdout
    for found in (
        "header alg is `RS256`",
        "the signature is right",
        "exp: valid for ",
        "accepted: it is `keycloak/alice`",
        "username `alice` from the claim `preferred_username`",
        "groups from the claim `groups`: finance",
        "roles from the claim `realm_access.roles`: reader, writer",
        "group:keycloak/finance",
        "identity.allowances[1] applies, by `role:keycloak/reader`: rpm_limit 60",
        "collections.policy[0] for names `fin-*`: query (by `group:keycloak/finance`)",
        "tools it may run: search_documents",
        "the claim `milvus` holds a credential",
    ):
        assert found in lines(ran, "ok"), ran.stdout


def test_a_token_for_another_service_says_which_audience_it_has(
    realm: Issuer, with_token: Callable[[str], Ran]
) -> None:
    ran = with_token(realm.token("alice", aud=["account"], exp=int(time.time()) + 600))
    assert ran.returncode == 1
    assert "aud is account, wanted is litellm  -> Add an audience mapper" in lines(ran, "fail")
    assert "refused: The access token is not for this service" in lines(ran, "fail")
    assert "the signature is right" in lines(ran, "ok")
    assert "keycloak/alice" not in ran.stdout


def test_a_key_is_explained_without_being_shown(with_token: Callable[[str], Ran]) -> None:
    ran = with_token(ALICE_KEY)
    assert ran.returncode == 0, ran.stdout
    assert "accepted: it is `local/alice`" in lines(ran, "ok")
