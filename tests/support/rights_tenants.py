"""The people of the rights matrix, as each kind of identity source knows them: names are the same in all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.issuer import Issuer, issuer
from tests.support.rights_stage import Tenant, groups

LIFE_S = 3600
Sources = list[Mapping[str, Any]]


def keycloak(realm: Issuer, source: str, prefix: str = "") -> Tenant:
    """Access tokens of a realm; with the prefix `service-account-` those of service accounts."""

    def headers(name: str) -> dict[str, str]:
        claims = {"exp": int(time.time()) + LIFE_S, "groups": [f"/{group}" for group in groups(name)]}
        return {"authorization": f"Bearer {realm.token(prefix + name, **claims)}"}

    return Tenant(source, headers, prefix)


@contextmanager
def tenants() -> Iterator[tuple[list[Tenant], Sources]]:
    """All of them, and the sources for the configuration."""
    with issuer("company") as company, issuer("partners") as partners:
        sources: Sources = [
            {"use": "oidc", "name": "keycloak", "issuer": company.url, "audience": "litellm"},
            {"use": "oidc", "name": "partners", "issuer": partners.url, "audience": "litellm"},
        ]
        yield (
            [
                keycloak(company, "keycloak"),
                keycloak(company, "keycloak", "service-account-"),
                keycloak(partners, "partners"),
            ],
            sources,
        )
