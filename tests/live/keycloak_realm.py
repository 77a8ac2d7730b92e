"""A throwaway realm of a real Keycloak, and the tokens that it gives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwk, jws
from keycloak import KeycloakAdmin

from deploy.keycloak.keycloak import Server, realm

CA_FILE = os.environ.get("KEYCLOAK_CA_FILE")
"""PEM file of the authority that a Keycloak of one's own is certified by."""
SECRETS = {"litellm": "litellm-secret", "ingest": "ingest-secret", "open-webui": "open-webui-secret"}
TIMEOUT_S = 30
UNLOCKED = {"bruteForceProtected": False}
"""Else the tests' own wrong passwords lock people out for a minute."""


class Realm:
    """As `deploy/keycloak/realm.json` says, under a name of its own."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.url = f"{server.url}/realms/{name}"
        self.http = httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=CA_FILE or True)
        self.admin = admin(server, name)

    def close(self) -> None:
        self.http.close()

    def post(self, endpoint: str, client: str = "litellm", **form: str) -> httpx.Response:
        """Ask an endpoint of OpenID Connect as a client of the realm."""
        known = {"client_secret": SECRETS[client]} if client in SECRETS else {}
        address = f"{self.url}/protocol/openid-connect/{endpoint}"
        return self.http.post(address, data={"client_id": client, **known, **form})

    def tokens(self, username: str = "alice", client: str = "litellm", **form: str) -> dict[str, str]:
        """By the password grant."""
        own = {"grant_type": "password", "username": username, "password": f"{username}-pw"}
        return self._given(self.post("token", client, **{**own, "scope": "openid", **form}))

    def service_tokens(self, client: str = "ingest") -> dict[str, str]:
        """By the client credentials grant."""
        return self._given(self.post("token", client, grant_type="client_credentials"))

    def refreshed(self, refresh_token: str) -> dict[str, str]:
        return self._given(self.post("token", grant_type="refresh_token", refresh_token=refresh_token))

    def _given(self, answer: httpx.Response) -> dict[str, str]:
        assert answer.status_code == 200, answer.text
        given: dict[str, str] = answer.json()
        return given

    def logout(self, refresh_token: str) -> None:
        answer = self.post("logout", refresh_token=refresh_token)
        assert answer.status_code == 204, answer.text

    def user_id(self, username: str) -> str:
        found: str | None = self.admin.get_user_id(username)
        assert found
        return found

    def change_user(self, username: str, **changed: Any) -> None:
        self.admin.update_user(self.user_id(username), changed)

    def change_client(self, client: str, **changed: Any) -> None:
        """Attributes are added to those that it has."""
        found = self.admin.get_client_id(client)
        assert found
        before = self.admin.get_client(found)
        attributes = {**before.get("attributes", {}), **changed.pop("attributes", {})}
        self.admin.update_client(found, {**before, **changed, "attributes": attributes})

    def add_key(self, priority: int, provider: str = "rsa-generated", **config: str) -> str:
        """A signing key of the realm, by default a new one; the one of the highest priority signs."""
        own = {"priority": str(priority), "enabled": "true", "active": "true", "algorithm": "RS256"}
        made: str = self.admin.create_component(
            {
                "name": f"key-{priority}",
                "providerId": provider,
                "providerType": "org.keycloak.keys.KeyProvider",
                "parentId": self.admin.get_realm(self.name)["id"],
                "config": {name: [value] for name, value in {**own, **config}.items()},
            }
        )
        return made

    def change_key(self, component: str, **config: str) -> None:
        found = self.admin.get_component(component)
        found["config"] |= {name: [value] for name, value in config.items()}
        self.admin.update_component(component, found)

    def key_ids(self) -> list[str]:
        """The components that give the keys which sign with RS256."""
        found = self.admin.get_components({"type": "org.keycloak.keys.KeyProvider"})
        return [one["id"] for one in found if one["providerId"] == "rsa-generated"]

    def own_key(self) -> jwk.RSAKey:
        """A key that from now on signs the realm's tokens, and that is known here: for tokens such as the
        realm itself would never give."""
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        before = {key["kid"] for key in self.published()}
        self.add_key(200, "rsa", privateKey=pem.decode())
        [kid] = {key["kid"] for key in self.published()} - before
        return jwk.RSAKey.import_key(pem, {"kid": kid, "alg": "RS256", "use": "sig"})

    def published(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.http.get(f"{self.url}/protocol/openid-connect/certs").json()[
            "keys"
        ]
        return found


def admin(server: Server, realm_name: str) -> KeycloakAdmin:
    return KeycloakAdmin(
        server_url=f"{server.url}/",
        username=server.admin,
        password=server.password,
        realm_name=realm_name,
        user_realm_name="master",
        verify=CA_FILE or True,
    )


@contextmanager
def throwaway(server: Server, **settings: Any) -> Iterator[Realm]:
    """A realm that nobody else uses, with these settings changed; it is removed in any case."""
    name = f"test-{secrets.token_hex(6)}"
    admin(server, "master").create_realm({**realm(name), **UNLOCKED, **settings})
    # a new sign-in: the admin's token from before has no rights in the new realm
    made = Realm(server, name)
    try:
        yield made
    finally:
        made.admin.delete_realm(name)
        made.close()


def claims_of(token: str) -> dict[str, Any]:
    segment = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return found


def signed(
    claims: dict[str, Any] | bytes,
    key: jwk.RSAKey | None,
    kid: str | None = None,
    **header: Any,
) -> str:
    """Any token at all; without a key it is not signed. A claim or a header field of None is left out."""
    kid = kid or (key.kid if key else None)
    fields = {"alg": "RS256" if key else "none", "typ": "JWT", "kid": kid, **header}
    body = claims if isinstance(claims, bytes) else json.dumps(present(claims)).encode()
    text = f"{b64(json.dumps(present(fields)).encode())}.{b64(body)}"
    if key is None:
        return f"{text}."
    return f"{text}.{b64(jws.JWSRegistry.algorithms[fields['alg']].sign(text.encode(), key))}"


def signed_with_secret(claims: dict[str, Any], secret: bytes, kid: str | None) -> str:
    """By HS256; joserfc itself refuses a public key as the secret."""
    header = {"alg": "HS256", "typ": "JWT", "kid": kid}
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
