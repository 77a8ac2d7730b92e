"""`make setup`: the settings and secrets of the stack in `compose.yaml`, for development and for production.

Makes `.env.dev` and `.env.prod` from the templates in `deploy/env/`, and in `.secrets/dev` and
`.secrets/prod` one file for each secret and Keycloak's realm. What is there already stays as it is. Only the
standard library is used.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

DEPLOY = Path(__file__).parent
TEMPLATES = DEPLOY / "env"
REALM = DEPLOY / "keycloak" / "realm.json"
ENVIRONMENTS = ("dev", "prod")
KEYS = ("litellm_master_key", "demo_alice_key", "demo_bob_key", "demo_carol_key")
"""LiteLLM wants its keys to begin with `sk-`."""
PASSWORDS = (
    "postgres_password",
    "keycloak_database_password",
    "keycloak_admin_password",
    "litellm_client_secret",
    "open_webui_client_secret",
    "ingest_client_secret",
    "milvus_password",
    "object_store_password",
    "redis_password",
    "open_webui_secret_key",
    "open_webui_admin_password",
    "grafana_admin_password",
)
DATABASE = "postgresql://collections:{}@postgres:5432/collections"
PROXY = "http://proxy:4000"
"""Where the stack's own services reach the proxy."""


def main() -> None:
    for line in setup(DEPLOY.parent):
        print(line)


def setup(root: Path) -> list[str]:
    """Make what is missing under ``root``; answers what was made, in words."""
    made = []
    for environment in ENVIRONMENTS:
        settings = (TEMPLATES / f"{environment}.env.template").read_text(encoding="utf-8")
        if write(root / f".env.{environment}", settings, 0o600):
            made.append(f".env.{environment}: look through it")
        folder = root / ".secrets" / environment
        # The containers' users are others than ours: their files are readable, and the folder is closed.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.chmod(0o700)
        new = [name for name, value in values(folder).items() if write(folder / name, value, 0o444)]
        if write(folder / "realm.json", json.dumps(realm(people=environment == "dev"), indent=2), 0o444):
            new.append("realm.json")
        if new:
            made.append(f".secrets/{environment}: {', '.join(new)}")
    return made or ["Everything is there already: .env.dev, .env.prod, .secrets/"]


def values(folder: Path) -> dict[str, str]:
    """A new value for each secret; the database's address has the password that is there, if there is one."""
    found = {name: f"sk-{secrets.token_urlsafe(32)}" for name in KEYS}
    found |= {name: secrets.token_urlsafe(32) for name in PASSWORDS}
    password = folder / "postgres_password"
    there = password.exists()
    known = password.read_text(encoding="utf-8").rstrip("\r\n") if there else found["postgres_password"]
    return found | {"database_url": DATABASE.format(quote(known, safe=""))}


def write(path: Path, content: str, mode: int) -> bool:
    """Whether the file is new; one that is there is left as it is."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    path.chmod(mode)
    return True


def realm(*, people: bool) -> dict[str, Any]:
    """The realm of `keycloak/realm.json` with addresses and secrets that Keycloak takes from its environment.

    Args:
        people: Whether its sample users are in it; the accounts of services always are.
    """
    found: dict[str, Any] = json.loads(REALM.read_text(encoding="utf-8"))
    found["users"] = [user for user in found["users"] if people or "serviceAccountClientId" in user]
    clients = {client["clientId"]: client for client in found["clients"]}
    for name in ("litellm", "open-webui", "ingest"):
        clients[name]["secret"] = f"${{{name.replace('-', '_').upper()}_CLIENT_SECRET}}"
    clients["litellm"]["redirectUris"] = ["${PUBLIC_BASE_URL}/*"]
    clients["litellm"]["attributes"]["backchannel.logout.url"] = f"{PROXY}/api/auth/backchannel-logout"
    clients["open-webui"]["redirectUris"] = ["${OPEN_WEBUI_URL}/*"]
    if not people:
        clients["litellm"]["directAccessGrantsEnabled"] = False
        found["clients"] = [client for client in found["clients"] if client["clientId"] != "other-app"]
    return found


if __name__ == "__main__":
    main()
