"""The people of the rights matrix, as each kind of identity source knows them: names are the same in all."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from plugins.auth._sessions import COOKIE
from tests.support import open_webui
from tests.support.gitlab import gitlab
from tests.support.issuer import Claims
from tests.support.issuer_acme import NAMESPACE, acme_issuer
from tests.support.keycloak_issuer import CLIENT, KeycloakIssuer
from tests.support.rights_stage import INSIDER, PEOPLE, Tenant, groups

LIFE_S = 3600
BROWSER = "browser-"
SERVICE = "service-account-"


class Company(KeycloakIssuer):
    """Knows everybody by any name; who is called the insider is in the insiders' groups."""

    def claims(self, username: str = "alice", **changed: Any) -> Claims:
        name = username.removeprefix(BROWSER).removeprefix(SERVICE)
        own = {"groups": [f"/{group}" for group in groups(name)]}
        return super().claims(username, **{**own, **changed})


def bearers(realm: Company, prefix: str = "") -> Tenant:
    """Access tokens of a realm; with the prefix `service-account-` those of service accounts."""

    @functools.cache
    def headers(name: str, url: str) -> Mapping[str, str]:
        claims = realm.claims(prefix + name)
        token = realm.sign({**claims, "exp": claims["iat"] + LIFE_S})
        return {"authorization": f"Bearer {token}"}

    return Tenant("keycloak", headers, prefix)


def browsers(realm: Company) -> Tenant:
    """The same realm's people, with the cookie of a session that they began with the code flow."""

    @functools.cache
    def headers(name: str, url: str) -> Mapping[str, str]:
        with httpx.Client(base_url=url, trust_env=False) as client:
            begun = client.get("/api/auth/sign-in", params={"next": "/"})
            back = realm.browser_signs_in(begun.headers["location"], BROWSER + name)
            path = re.sub(r"^https?://[^/]+", "", back)
            done = client.get(path, headers={"cookie": begun.headers["set-cookie"].partition(";")[0]})
        given = [value for key, value in done.headers.multi_items() if key == "set-cookie"]
        [cookie] = [value.partition(";")[0] for value in given if value.startswith(f"{COOKIE}=")]
        return {"cookie": cookie, "sec-fetch-site": "same-origin"}

    return Tenant("keycloak", headers, BROWSER)


@contextmanager
def tenants() -> Iterator[tuple[list[Tenant], list[Mapping[str, Any]]]]:
    """All of them, and the sources for the configuration."""
    company = Company(lifetime_s=LIFE_S)
    try:
        with acme_issuer() as acme, gitlab() as forge:

            @functools.cache
            def of_acme(name: str, url: str) -> Mapping[str, str]:
                said = {"login": name, "teams": [f"/{group}" for group in groups(name)]}
                claims = acme.claims(name, **{NAMESPACE: said})
                return {"authorization": f"Bearer {acme.sign({**claims, 'exp': claims['iat'] + LIFE_S})}"}

            @functools.cache
            def of_gitlab(name: str, url: str) -> Mapping[str, str]:
                user = {"nickname": name, "preferred_username": name, "groups": groups(name)}
                number = 100 + PEOPLE.index(name)
                token = forge.token(user={**user, "sub": str(number)}, resource_owner_id=number)
                return {"authorization": f"Bearer {token}"}

            def of_open_webui(name: str, url: str) -> Mapping[str, str]:
                token = open_webui.user_token(name, sub=name)
                return {"authorization": f"Bearer {open_webui.KEY}", open_webui.HEADER: token}

            address = f"{INSIDER}@example.test"
            yield (
                [
                    bearers(company),
                    bearers(company, SERVICE),
                    browsers(company),
                    Tenant("acme", of_acme),
                    Tenant("gitlab", of_gitlab),
                    Tenant("open_webui", of_open_webui),
                ],
                [
                    {
                        "use": "oidc",
                        "name": "keycloak",
                        "issuer": company.url,
                        "audience": "litellm",
                        **CLIENT,
                    },
                    {"use": "oidc", "name": "acme", **acme.settings},
                    {
                        "use": "open_webui",
                        "key": open_webui.KEY,
                        "jwt_secret": open_webui.SECRET,
                        "username_claim": "sub",
                        "people": [{"email": address, "groups": groups(INSIDER)}],
                    },
                    # takes every opaque bearer, also what others would refuse
                    {"use": "gitlab", **forge.settings},
                ],
            )
    finally:
        company.close()
