"""The stack in `deploy/`: right by the Compose specification, hardened, its configuration right, too."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from sqlalchemy import make_url

from deploy import setup as stack
from tests.live.open_webui_server import QUIET, Connection, sign_in, upstreams
from tests.support.proxy import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA = json.loads((ROOT / "tests/fixtures/schemas/compose-spec.json").read_text(encoding="utf-8"))
TASKS = {"X-RAG-Task": "{{TASK}}"}
ONCE = {"migrate", "ollama-model"}
"""They do their work and end."""
OPEN = {"minimal", "proxy", "keycloak", "open-webui", "grafana"}
"""What people's browsers and clients reach."""
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)\}")
SECRET = re.compile(r"PASSWORD|SECRET|_KEY|TOKEN|DATABASE_URL")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `make setup` ran."""
    folder = tmp_path_factory.mktemp("stack")
    stack.setup(folder)
    return folder


def settings(environment: str) -> dict[str, str]:
    text = (DEPLOY / "env" / f"{environment}.env.template").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def environment_of(service: str, folder: Path) -> dict[str, str]:
    """The variables of a container in development; secrets are where `make setup` put them."""
    given = settings("dev")
    found = {
        name: VARIABLE.sub(lambda match: given[match[1]], str(value))
        for name, value in SERVICES[service]["environment"].items()
        if value is not None  # as in the settings; there is none
    }
    secrets = f"{folder}/.secrets/dev/"
    return {name: value.replace("/run/secrets/", secrets) for name, value in found.items()}


@pytest.mark.parametrize("name", ["compose.yaml", "compose.dev.yaml"])
def test_the_files_follow_the_compose_specification(name: str) -> None:
    jsonschema.validate(yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8")), SCHEMA)


def test_a_misspelt_key_does_not() -> None:
    wrong = {**COMPOSE, "services": {**SERVICES, "redis": {**SERVICES["redis"], "read_onlyy": True}}}
    with pytest.raises(jsonschema.ValidationError, match="read_onlyy"):
        jsonschema.validate(wrong, SCHEMA)


def test_the_profiles_are_the_proxy_alone_and_the_rest() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items()}
    assert [name for name, found in profiles.items() if found == ["minimal"]] == ["minimal"]
    assert all(found == ["full"] for name, found in profiles.items() if name != "minimal")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_bounded_pinned_and_watched(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    assert service["image"] == "${IMAGE}" or re.fullmatch(r"[\w./-]+:\S*\d\S*", service["image"])
    assert ("healthcheck" in service) != (name in ONCE)
    assert service["security_opt"][0] == "no-new-privileges:true"
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", ["minimal", "proxy", "worker", "migrate"])
def test_ours_have_a_read_only_root_and_no_capabilities(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"], service.get("privileged")) == (True, ["ALL"], None)
    writable = [mount for mount in service["volumes"] if not mount.endswith(":ro")]
    assert len(writable) == 1
    assert writable[0].endswith(":/data")


def test_only_what_people_reach_listens_on_this_machine_and_only_where_the_settings_say() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == OPEN
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("${BIND}:") for port in ports)
    assert settings("dev")["BIND"] == settings("prod")["BIND"] == "127.0.0.1"


def test_stores_are_in_a_network_that_reaches_nobody() -> None:
    assert COMPOSE["networks"]["stores"]["internal"] is True
    for name in ("postgres", "redis", "etcd", "object-store", "milvus"):
        assert SERVICES[name]["networks"] == ["stores"]


def test_no_secret_stands_in_an_environment() -> None:
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            assert not SECRET.search(name) or name.endswith("_FILE") or value in ("", "milvus"), name
            assert not name.endswith("_FILE") or value.removeprefix("/run/secrets/") in service["secrets"], (
                name
            )


def test_each_secret_is_made_by_setup_and_used(made: Path) -> None:
    files = {path.name for path in (made / ".secrets" / "dev").iterdir()} - {"realm.json"}
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", ())}
    assert set(COMPOSE["secrets"]) == files == used
    for service in SERVICES.values():
        text = json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
        assert set(re.findall(r"/run/secrets/(\w+)", text)) <= set(service.get("secrets", ()))


@pytest.mark.parametrize("environment", stack.ENVIRONMENTS)
def test_the_settings_are_those_that_the_files_use(environment: str) -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert set(settings(environment)) == set(VARIABLE.findall(text))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_shells_are_given_is_right_to_them(name: str) -> None:
    service = SERVICES[name]
    lines = [service.get("command"), service.get("entrypoint"), service.get("healthcheck", {}).get("test")]
    for line in lines:
        if line and ("-c" in line or line[0] == "CMD-SHELL") and "python" not in line:
            script = line[-1].replace("$$", "$")
            subprocess.run(["bash", "-n", "-c", script], check=True, timeout=30)


def test_setup_makes_secrets_once_readable_only_through_a_closed_folder(made: Path) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert stack.setup(made) == ["Everything is there already: .env.dev, .env.prod, .secrets/"]
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    for name in (".secrets", ".secrets/dev", ".secrets/prod"):
        assert stat.S_IMODE((made / name).stat().st_mode) == 0o700
    contents = [content for path, content in before.items() if path.parent.parent.name == ".secrets"]
    assert len(set(contents)) == len(contents), "each is its own, in both environments"


def test_a_password_that_somebody_chose_is_in_the_database_s_address_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".secrets" / "prod").mkdir(parents=True)
    (tmp_path / ".secrets" / "prod" / "postgres_password").write_text("p@ss/w%rd\n", encoding="utf-8")
    stack.setup(tmp_path)
    address = (tmp_path / ".secrets" / "prod" / "database_url").read_text(encoding="utf-8")
    assert make_url(address).password == "p@ss/w%rd"


def test_setup_completes_what_is_half_there(tmp_path: Path) -> None:
    stack.setup(tmp_path)
    folder = tmp_path / ".secrets" / "prod"
    (folder / "database_url").unlink()
    (folder / "redis_password").unlink()
    assert stack.setup(tmp_path) == [".secrets/prod: redis_password, database_url"]
    assert (folder / "postgres_password").read_text() in (folder / "database_url").read_text()


def test_the_realm_of_production_has_no_sample_people_and_no_known_secret(made: Path) -> None:
    realm = json.loads((made / ".secrets" / "prod" / "realm.json").read_text(encoding="utf-8"))
    assert {user["username"] for user in realm["users"]} == {
        "service-account-litellm",
        "service-account-ingest",
    }
    variables = set(VARIABLE.findall(json.dumps(realm)))
    keycloak = SERVICES["keycloak"]
    exported = set(re.findall(r"\b([A-Z_]+)=", keycloak["entrypoint"][-1])) | set(keycloak["environment"])
    assert {"LITELLM_CLIENT_SECRET", "PUBLIC_BASE_URL", "OPEN_WEBUI_URL"} <= variables
    assert variables <= exported
    for client in realm["clients"]:
        assert VARIABLE.fullmatch(client["secret"])
        assert not client.get("directAccessGrantsEnabled")
        assert all(uri.startswith("${") for uri in client.get("redirectUris", ()))


@pytest.mark.parametrize("service", ["minimal", "proxy"])
def test_the_configuration_of_each_profile_is_right(service: str, made: Path, tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "config" if service == "minimal" else DEPLOY / "compose/config", tmp_path / "config"
    )
    shutil.copytree(ROOT / "config" / "prompts", tmp_path / "config" / "prompts", dirs_exist_ok=True)
    source = ROOT if service == "minimal" else DEPLOY / "compose"
    own = {"COLLECTIONS_CONFIG": f"{tmp_path}/config", "DATA_DIR": f"{tmp_path}/data"}
    environ = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **own}
    done = subprocess.run(
        [sys.executable, "-m", "plugins", "check", "--config", str(source / "litellm_config.yaml")],
        cwd=tmp_path,
        env=environ | environment_of(service, made),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("goals", "expected"),
    [
        (["up"], "compose.dev.yaml --profile minimal up --detach --build"),
        (["up", "PROFILE=full"], "--profile full up --detach --build"),
        (["up-prod"], "--env-file .env.prod -f deploy/compose.yaml --profile full up --detach"),
        (["down"], "--profile minimal down"),
        (["logs", "ENV=prod"], "--env-file .env.prod -f deploy/compose.yaml --profile full logs"),
        (["shell"], "exec minimal sh"),
        (["shell", "PROFILE=full", "SERVICE=worker"], "exec worker sh"),
        (["shell", "ENV=prod"], "exec proxy sh"),
    ],
)
def test_make_speaks_to_the_right_stack(goals: list[str], expected: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *goals],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert expected in done.stdout


def test_open_webui_is_set_up_as_in_the_tests_with_a_real_one() -> None:
    given = settings("dev")
    environment = {
        name: VARIABLE.sub(lambda match: given[match[1]], value)
        for name, value in SERVICES["open-webui"]["environment"].items()
    }
    issuer = f"{given['KEYCLOAK_URL']}/realms/company"
    known = sign_in(issuer, given["OPEN_WEBUI_URL"]) | upstreams("http://proxy:4000", [Connection(TASKS)])
    known |= QUIET
    del known["OAUTH_CLIENT_SECRET"]
    # its resolver asks no server for names in `.localhost`: to it they are its own container
    known["OPENID_PROVIDER_URL"] = known["OPENID_PROVIDER_URL"].replace(
        given["KEYCLOAK_URL"], "http://keycloak:8080"
    )
    assert SERVICES["keycloak"]["environment"]["KC_HOSTNAME_BACKCHANNEL_DYNAMIC"] == "true"
    [ours], [theirs] = (
        json.loads(values.pop("OPENAI_API_CONFIGS")).values() for values in (environment, known)
    )
    assert theirs == {**ours, "prefix_id": ""}
    assert known.items() <= environment.items()


def mounted(service: str) -> dict[str, Path]:
    """By its path in the container, what of the repository is mounted there."""
    mounts = [mount.split(":") for mount in SERVICES[service]["volumes"] if mount.startswith("./")]
    return {inside: DEPLOY / outside for outside, inside, *_ in mounts}


def test_the_dashboard_is_where_grafana_is_told_to_look_for_it() -> None:
    mounts = mounted("grafana")
    assert all(path.exists() for path in mounts.values())
    provisioning = mounts["/etc/grafana/provisioning"]
    [provider] = yaml.safe_load((provisioning / "dashboards/collections.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    assert provider["options"]["path"] in [str(Path(inside).parent) for inside in mounts]
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    assert source["url"].removeprefix("http://").partition(":")[0] in SERVICES


def test_prometheus_finds_its_rules_and_holds_no_key() -> None:
    mounts = mounted("prometheus")
    [option] = [word for word in SERVICES["prometheus"]["command"] if word.startswith("--config.file=")]
    file = Path(option.partition("=")[2])
    settings = yaml.safe_load(mounts[str(file)].read_text(encoding="utf-8"))
    assert {str(file.parent / name) for name in settings["rule_files"]} <= set(mounts)
    assert "secrets" not in SERVICES["prometheus"]
    assert not [job for job in settings["scrape_configs"] if "authorization" in job]


def test_figures_are_looked_for_where_proxy_and_worker_show_them() -> None:
    worker = yaml.safe_load((DEPLOY / "compose/config/worker.yaml").read_text(encoding="utf-8"))["worker"]
    assert f":{worker['metrics_port']}/metrics" in SERVICES["worker"]["healthcheck"]["test"][-1]
    prometheus = yaml.safe_load((DEPLOY / "monitoring/prometheus.yaml").read_text(encoding="utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in prometheus["scrape_configs"]}
    proxy = SERVICES["proxy"]["environment"]["PROMETHEUS_METRICS_PORT"]
    assert targets == {"proxy": [f"proxy:{proxy}"], "worker": [f"worker:{worker['metrics_port']}"]}
    assert not [port for service in SERVICES.values() for port in service.get("ports", []) if proxy in port]
