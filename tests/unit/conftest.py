"""A Keycloak on loopback for all unit tests that sign people in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.keycloak_issuer import KeycloakIssuer, keycloak_issuer


@pytest.fixture(scope="session")
def keycloak() -> Iterator[KeycloakIssuer]:
    with keycloak_issuer() as running:
        yield running


@pytest.fixture
def realm(keycloak: KeycloakIssuer) -> KeycloakIssuer:
    """It remembers nothing of the test before."""
    keycloak.forget()
    return keycloak
