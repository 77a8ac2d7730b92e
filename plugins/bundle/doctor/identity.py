"""Each identity source, tried at its issuer."""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from keycloak.exceptions import KeycloakError

from plugins.auth._claims import unverified_claims
from plugins.auth._issuer import MAX_RESPONSE_BYTES, signing_key
from plugins.auth._keycloak import Keycloak
from plugins.auth._keys import digest, known_digest
from plugins.auth.api_keys import ApiKeys
from plugins.auth.gitlab import Gitlab
from plugins.auth.litellm import Litellm
from plugins.auth.oidc import Oidc, OidcSettings
from plugins.auth.open_webui import OpenWebui
from plugins.bundle.doctor.findings import Notes, counted, reason
from plugins.core.errors import IdentityUnavailable
from plugins.core.ports import Directory, IdentitySource

DISCOVERY = "/.well-known/openid-configuration"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
NO_TOKEN = "not-a-token"  # noqa: S105 - for introspection, which answers that it is not active


class LitellmFacts(NamedTuple):
    """What LiteLLM's YAML and environment say of its own keys."""

    master_key: str
    weakness: str | None
    """Why LiteLLM would refuse to start with the master key."""
    database: bool
    """Whether LiteLLM has a database for virtual keys."""
    budgets: bool = False
    """Whether our allowances have budgets, which need that database."""


async def examine_source(notes: Notes, source: IdentitySource[Any], litellm: LitellmFacts) -> None:
    match source:
        case Oidc():
            await examine_oidc(notes, source)
        case Gitlab():
            await examine_gitlab(notes, source)
        case OpenWebui():
            examine_open_webui(notes, source, litellm)
        case ApiKeys():
            examine_api_keys(notes, source, litellm)
        case Litellm():
            examine_litellm(notes, litellm)
        case _:
            await source.ping()
            notes.ok("its settings are read, and it answers")


async def examine_oidc(notes: Notes, source: Oidc) -> None:
    settings = source.settings
    url = urlsplit(settings.issuer)
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        notes.warn("its keys are fetched in the clear", "Use the issuer's https address.")
    try:
        async with opened(settings.ca_file, settings.timeout_s) as client:
            found = await discovery(notes, client, settings.issuer)
            if found is not None:
                await keys(notes, client, found.document, settings)
    except httpx.HTTPError as error:
        notes.fail(f"{settings.issuer} cannot be reached: {reason(error)}", _advice("issuer", reason(error)))
        return
    if found is None:
        return
    ahead_s = found.ahead_s
    if source.keycloak is not None and await examine_client(notes, source.keycloak, settings.client_id):
        ahead_s = await own_token(notes, source.keycloak, ahead_s)
    check_clock(notes, ahead_s, settings.leeway_s)
    if source.directory is not None:
        await examine_directory(notes, source.directory)


def opened(ca_file: Path | None, timeout_s: float) -> httpx.AsyncClient:
    """A client as the sources have it: their authorities, no proxy from the environment."""
    verify = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    return httpx.AsyncClient(verify=verify, timeout=timeout_s, trust_env=False)


class Discovered(NamedTuple):
    document: Mapping[str, Any]
    ahead_s: float | None
    """How far the clock behind the `Date` header is ahead of ours; None where there is no such header."""


async def discovery(notes: Notes, client: httpx.AsyncClient, issuer: str) -> Discovered | None:
    """The issuer's discovery document, if it can be used (OpenID Connect Discovery 1.0, section 4)."""
    began = time.time()
    response = await client.get(f"{issuer.rstrip('/')}{DISCOVERY}")
    ahead_s = ahead(response, (began + time.time()) / 2)
    document = content_of(response)
    if document is None:
        notes.fail(
            f"{issuer}{DISCOVERY} answers {response.status_code} and no JSON object",
            "Check `issuer`: Keycloak's is https://<server>/realms/<realm>.",
        )
        return None
    named = document.get("issuer")
    if named != issuer:
        notes.fail(
            f"the issuer calls itself `{named}`, and `issuer` is `{issuer}`",
            "Make them equal to the letter: tokens carry the issuer's own name.",
        )
        return None
    notes.ok(f"{issuer} answers, and its discovery document names the same issuer")
    return Discovered(document, ahead_s)


def content_of(response: httpx.Response) -> dict[str, Any] | None:
    """The JSON object of a good answer of a sane size."""
    if response.status_code != httpx.codes.OK or len(response.content) > MAX_RESPONSE_BYTES:
        return None
    try:
        value = json.loads(response.content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def ahead(response: httpx.Response, now: float) -> float | None:
    """How far the clock of a `Date` header, which has whole seconds, is ahead of ours."""
    try:
        written = email.utils.parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    return written.timestamp() + 0.5 - now


def check_clock(notes: Notes, ahead_s: float | None, leeway_s: int) -> None:
    """The issuer's clock against ours."""
    if ahead_s is None:
        notes.warn(
            "its clock could not be read: it sends no `Date` header",
            "Give a token that was just issued as --token-file, and look at its `iat`.",
        )
        return
    skew = int(ahead_s)  # less than a second is the header's own inexactness, and the request's way
    found = (
        f"its clock is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} ours"
        if skew
        else "the clocks agree"
    )
    if abs(skew) <= max(leeway_s // 2, 2):
        notes.ok(f"{found} (`leeway_s` is {leeway_s})")
    elif abs(skew) <= leeway_s:
        notes.warn(f"{found} (`leeway_s` is {leeway_s})", "Synchronise both clocks (NTP).")
    else:
        notes.fail(f"{found}, and `leeway_s` is {leeway_s}", "Synchronise both clocks (NTP).")


async def published(client: httpx.AsyncClient, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of the issuer's key set (RFC 7517)."""
    content = content_of(await client.get(str(document.get("jwks_uri")))) or {}
    entries = content.get("keys")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


async def keys(
    notes: Notes, client: httpx.AsyncClient, document: Mapping[str, Any], settings: OidcSettings
) -> None:
    """How many keys are published that can check signatures, and of which kind."""
    scheme = settings.issuer.partition(":")[0]
    if not str(document.get("jwks_uri")).startswith(f"{scheme}://"):
        notes.fail("the discovery document has no usable `jwks_uri`", f"It must begin with {scheme}://.")
        return
    entries = await published(client, document)
    usable = [entry for entry in entries if signing_key(entry) is not None]
    fitting = [e for e in usable if e.get("alg") is None or e["alg"] in settings.algorithms]
    described = ", ".join(f"{e.get('kty')} {e.get('alg') or ''} kid {e.get('kid')}" for e in usable)
    others = len(entries) - len(usable)
    left = f"; {others} more not for signatures" if others else ""
    if not usable:
        notes.fail(
            f"no usable signing key is published{left}",
            "It needs `use: sig`, and RSA keys at least 2048 bits: add such a key at the issuer.",
        )
    elif not fitting:
        notes.fail(
            f"no key is for an accepted algorithm: {described}",
            f"Change the issuer's algorithm, or `algorithms` ({', '.join(settings.algorithms)}).",
        )
    else:
        notes.ok(f"{counted(len(usable), 'signing key')}: {described}{left}")


async def examine_client(notes: Notes, keycloak: Keycloak, client_id: str | None) -> bool:
    """Whether this proxy's client at Keycloak and its secret are accepted, for introspection too."""
    try:
        await keycloak.openid.a_introspect(NO_TOKEN)
    except KeycloakError as error:
        status = error.response_code
        if status in (400, 401, 403):
            notes.fail(
                f"Keycloak refuses the client `{client_id}` ({status})",
                "Check `client_id` and `client_secret`; it must be enabled, with client authentication on.",
            )
        else:
            notes.fail(f"introspection gives no good answer ({status or 'none'})", "See Keycloak's log.")
        return False
    notes.ok(f"the client `{client_id}` is accepted, and may introspect tokens")
    return True


async def own_token(notes: Notes, keycloak: Keycloak, ahead_s: float | None) -> float | None:
    """How far the clock that a token of our own is issued by is ahead; ``ahead_s`` where there is none."""
    began = time.time()
    try:
        given = await keycloak.openid.a_token(grant_type="client_credentials")
    except KeycloakError:
        notes.ok("the client has no service account, which only `directory` needs")
        return ahead_s
    notes.ok("its service account signs in (client credentials)")
    issued = (unverified_claims(str(given.get("access_token"))) or {}).get("iat")
    return issued + 0.5 - (began + time.time()) / 2 if isinstance(issued, int) else ahead_s


async def examine_directory(notes: Notes, directory: Directory) -> None:
    """Whether people, roles and groups can be listed, as `directory: true` wants."""
    try:
        await directory.people("", after=None, limit=1)
        notes.ok(
            f"it may list users, {counted(len(await directory.roles()), 'role')} and "
            f"{counted(len(await directory.groups()), 'group')}"
        )
    except IdentityUnavailable:
        notes.fail(
            "`directory` is on, and Keycloak does not let this client list users, roles and groups",
            "Give its service account the roles `view-users` and `view-realm` of `realm-management`.",
        )


async def examine_gitlab(notes: Notes, source: Gitlab) -> None:
    """Whether it is a GitLab that can be asked about tokens."""
    settings = source.settings
    try:
        async with opened(settings.ca_file, settings.timeout_s) as client:
            found = await client.get(f"{settings.url}{DISCOVERY}")
            asked = await client.get(f"{settings.url}/oauth/token/info")
    except httpx.HTTPError as error:
        notes.fail(f"{settings.url} cannot be reached: {reason(error)}", _advice("url", reason(error)))
        return
    if content_of(found) is None or asked.status_code != httpx.codes.UNAUTHORIZED:
        notes.fail(
            f"{settings.url} does not answer as GitLab does", "Check `url`: its sign-in page is there."
        )
        return
    notes.ok(f"{settings.url} answers as GitLab does")
    notes.ok(f"tokens of {counted(len(settings.applications), 'application')} are accepted")


def examine_open_webui(notes: Notes, source: OpenWebui, litellm: LitellmFacts) -> None:
    settings = source.settings
    if known_digest(settings.key) == digest(litellm.master_key):
        notes.fail("its key is the master key", "Give Open WebUI a key of its own.")
    if settings.plain_headers:
        notes.warn(
            "it believes unsigned headers of whoever has the key",
            "Set `jwt_secret`, and the same in Open WebUI (FORWARD_USER_INFO_HEADER_JWT_SECRET).",
        )
    else:
        notes.ok(f"persons are known by a signed header (iss `{settings.issuer}`)")
    notes.ok(
        f"{len(settings.people)} of `people` get groups and roles; "
        "whether Open WebUI sends what is wanted, only a chat from there shows"
    )


def examine_api_keys(notes: Notes, source: ApiKeys, litellm: LitellmFacts) -> None:
    entries = source.settings.keys
    people = sorted({entry.user for entry in entries})
    for user in people:
        number = sum(entry.user == user for entry in entries)
        if number > 1:
            notes.warn(f"`{user}` has {number} keys", "Take out those that are no longer used.")
    master = digest(litellm.master_key)
    if any(known_digest(entry.key) == master for entry in entries):
        notes.fail("the master key is one of the keys", "Give that person a key of their own.")
    shown = ", ".join(people[:10]) + (", ..." if len(people) > 10 else "")
    notes.ok(f"{counted(len(entries), 'key')} of {counted(len(people), 'user')}: {shown}")


def examine_litellm(notes: Notes, facts: LitellmFacts) -> None:
    if facts.weakness:
        notes.fail(facts.weakness, "Set LITELLM_MASTER_KEY to `sk-$(openssl rand -hex 32)`.")
    else:
        notes.ok(f"the master key is set ({len(facts.master_key)} characters)")
    if facts.database:
        notes.ok("LiteLLM has a database for virtual keys (it checks them itself)")
    else:
        notes.ok("LiteLLM has no database: of its own keys only the master key is accepted")
    if facts.budgets and not facts.database:
        notes.warn(
            "`max_budget` without LiteLLM's database is a rough cap: it counts what requests could cost",
            "Give LiteLLM a database (general_settings.database_url), or read docs/litellm.md.",
        )


def _advice(setting: str, why: str) -> str:
    if "certificate" in why:
        return "Set `ca_file` to the authority that signed it."
    return f"Check `{setting}`, the network and the firewall from this machine."
