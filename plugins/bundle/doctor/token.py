"""One token, step by step: which claim is wrong, who it is, and what that person may do here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from joserfc import jws
from joserfc.errors import JoseError
from pydantic import SecretStr

from plugins.auth._claims import claim, decoded, names, strict_object
from plugins.auth._issuer import signing_key
from plugins.auth.litellm import HandBack
from plugins.auth.oidc import Oidc, OidcSettings
from plugins.bundle.doctor.findings import Notes, reason
from plugins.bundle.doctor.identity import DISCOVERY, content_of, opened, published
from plugins.collections.rights import Rights
from plugins.core.config import Config
from plugins.core.errors import BundleError
from plugins.core.identity import RIGHTS, Credential, Principal, canonical_subject
from plugins.core.ports import IdentitySource

Claims = Mapping[str, Any]


async def examine_token(
    notes: Notes, token: SecretStr, sources: Sequence[IdentitySource[Any]], config: Config
) -> None:
    """The verdict of the source that accepts it, with every step before and everything after it."""
    credential = Credential(bearer=token, headers={}, peer="127.0.0.1")
    source = next((found for found in sources if found.accepts(credential)), None)
    parts = read(token.get_secret_value())
    if source is None:
        refused_by_all(notes, parts, sources)
        return
    notes.ok(f"the source `{source.name}` judges it: the first that accepts it")
    if isinstance(source, Oidc) and parts is not None:
        await explain(notes, token.get_secret_value(), *parts, source.settings)
    try:
        principal = await source.authenticate(credential)
    except HandBack:
        notes.ok("it is handed to LiteLLM, which checks it: the master key, or a virtual key")
        return
    except BundleError as error:
        notes.fail(f"refused: {error.message}", "Mend what failed above.")
        return
    notes.ok(f"accepted: it is `{principal.user_id}`")
    if isinstance(source, Oidc) and parts is not None:
        origins(notes, principal, parts[1], source.settings)
    means(notes, principal, config)


def read(token: str) -> tuple[Claims, Claims] | None:
    """Header and claims of a signed JWT, nothing verified; None where it is none."""
    try:
        header, payload, _ = token.split(".")
        return strict_object(decoded(header)), strict_object(decoded(payload))
    except ValueError:
        return None


def refused_by_all(
    notes: Notes, parts: tuple[Claims, Claims] | None, sources: Sequence[IdentitySource[Any]]
) -> None:
    if parts is None:
        notes.fail(
            "no source knows it, and it is no signed JWT (three parts between dots)",
            "Check that it is whole: only the token, without `Bearer`.",
        )
        return
    issuers = ", ".join(f"`{s.settings.issuer}`" for s in sources if isinstance(s, Oidc)) or "none"
    notes.fail(
        f"iss is `{shown(parts[1].get('iss'))}`, and the configured issuers are: {issuers}",
        "Take a token of one of these, or set `issuer` to exactly what the token says.",
    )


async def explain(notes: Notes, token: str, header: Claims, claims: Claims, settings: OidcSettings) -> None:
    """What `authenticate` checks, in its order, each with what is there and what is wanted."""
    alg, typ, kid = header.get("alg"), header.get("typ"), header.get("kid")
    verdict(
        notes,
        alg in settings.algorithms,
        f"header alg is `{shown(alg)}`",
        f"Accepted are {', '.join(settings.algorithms)}.",
    )
    kinds = {kind.lower() for kind in settings.token_types}
    verdict(
        notes,
        isinstance(typ, str) and typ.lower().removeprefix("application/") in kinds,
        f"header typ is `{shown(typ)}`",
        f"Accepted are {', '.join(settings.token_types)}.",
    )
    if alg in settings.algorithms:
        await check_signature(notes, token, kid, settings)
    check_claims(notes, claims, settings)
    check_times(notes, claims, settings.leeway_s)


async def check_signature(notes: Notes, token: str, kid: Any, settings: OidcSettings) -> None:
    """The key that the header names, and the signature with it."""
    try:
        async with opened(settings.ca_file, settings.timeout_s) as client:
            document = content_of(await client.get(f"{settings.issuer.rstrip('/')}{DISCOVERY}")) or {}
            entries = await published(client, document)
    except httpx.HTTPError as error:
        notes.fail(f"the issuer's keys cannot be fetched: {reason(error)}", "See the source's own lines.")
        return
    usable = {entry.get("kid"): key for entry in entries if (key := signing_key(entry)) is not None}
    key = usable.get(kid) if kid is not None or len(usable) != 1 else next(iter(usable.values()))
    if key is None:
        notes.fail(
            f"key `{shown(kid)}` is not published; published are: {', '.join(map(shown, usable)) or 'none'}",
            "Sign in again; if it stays, the token is of another server, or forged.",
        )
        return
    notes.ok(f"key `{shown(kid)}` is published")
    try:
        jws.deserialize_compact(token, key, algorithms=list(settings.algorithms))
        notes.ok("the signature is right")
    except (JoseError, ValueError):
        notes.fail("the signature is wrong", "Check that the token is whole and unchanged; sign in again.")


def check_claims(notes: Notes, claims: Claims, settings: OidcSettings) -> None:
    issuer, kind = claims.get("iss"), claims.get("typ")
    verdict(notes, issuer == settings.issuer, f"iss is `{shown(issuer)}`", f"Wanted is `{settings.issuer}`.")
    wanted = [settings.audience] if isinstance(settings.audience, str) else settings.audience
    verdict(
        notes,
        bool(set(names(claims.get("aud"))) & set(wanted)),
        f"aud is {listed(names(claims.get('aud')))}, wanted is {' or '.join(wanted)}",
        "Add an audience mapper to the client that asks for the token, or change `audience`.",
    )
    verdict(
        notes,
        kind in (None, "Bearer") and "at_hash" not in claims,
        f"typ is `{shown(kind)}`" + (", and it has an at_hash" if "at_hash" in claims else ""),
        "Send the access token, not the ID or the refresh token.",
    )
    verdict(
        notes,
        isinstance(claims.get("sub"), str),
        "sub is there" if "sub" in claims else "sub is missing",
        "Switch lightweight access tokens off at the client (or add the mapper for `sub`).",
    )


def check_times(notes: Notes, claims: Claims, leeway_s: int) -> None:
    now = time.time()
    within = f"(leeway {leeway_s} s)"
    for name, past in (("exp", "expired"), ("nbf", "valid since"), ("iat", "issued")):
        value = claims.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            if name != "nbf" or value is not None:
                notes.fail(f"{name} is missing or no number", "The issuer must set it (RFC 7519).")
            continue
        ahead = round(value - now)
        if name == "exp":
            found = f"exp: valid for {ahead} s more" if ahead >= 0 else f"exp: {past} {-ahead} s ago {within}"
            verdict(notes, ahead > -leeway_s, found, "Sign in again.")
        else:
            found = (
                f"{name}: {past} {-ahead} s" if ahead <= 0 else f"{name}: {ahead} s in the future {within}"
            )
            ago = " ago" if ahead <= 0 and name == "iat" else ""
            verdict(notes, ahead <= leeway_s, found + ago, "Synchronise the clocks (NTP).")


def verdict(notes: Notes, good: bool, found: str, do: str) -> None:
    if good:
        notes.ok(found)
    else:
        notes.fail(found, do)


def origins(notes: Notes, principal: Principal, claims: Claims, settings: OidcSettings) -> None:
    """Which claims the name, the groups and the roles came from."""
    notes.ok(f"username `{principal.username}` from the claim `{settings.username_claim}`")
    groups = f"groups from the claim `{settings.groups_claim}`: {listed(principal.groups)}"
    if claim(claims, settings.groups_claim) is None:
        notes.warn(
            f"no groups: the token has no claim `{settings.groups_claim}`",
            "Add a group membership mapper at the client, or set `groups_claim`, if grants name groups.",
        )
    else:
        notes.ok(groups)
    for path in settings.roles_claims:
        found = names(claim(claims, path))
        if claim(claims, path) is None:
            notes.warn(f"no roles: the token has no claim `{path}`", "Change `roles_claims`, if need be.")
        else:
            notes.ok(f"roles from the claim `{path}`: {listed(found)}")
    if settings.store_credential_claim:
        has = "holds" if principal.store_credential else "does not hold"
        notes.ok(f"the claim `{settings.store_credential_claim}` {has} a credential for Milvus")


def means(notes: Notes, principal: Principal, config: Config) -> None:
    """The subjects, and the settings that name one of them."""
    notes.ok(f"its subjects in grants: {listed(principal.subjects)}")
    known = frozenset(source.name or source.use.rpartition(".")[2] for source in config.identity.sources)
    for number, entry in enumerate(config.identity.allowances):
        held = principal.subjects & {canonical_subject(text, known) for text in entry.subjects}
        if held:
            limits = entry.model_dump(exclude_defaults=True, exclude={"subjects"}, mode="json")
            said = ", ".join(f"{key} {value}" for key, value in limits.items()) or "no limits"
            notes.ok(f"identity.allowances[{number}] applies, by `{min(held)}`: {said}")
            break
    else:
        notes.ok("no entry of identity.allowances names it: an internal user without limits")
    rules = list(matching(principal, config, known))
    if not rules:
        notes.warn(
            "no rule of collections.policy names it: it sees only collections that grant it something",
            "Add a rule to collections.policy, if that is not meant.",
        )
    for rule in rules:
        notes.ok(rule)
    tools = [entry.use.rpartition(".")[2] for entry in config.tools]
    allowed = [name for name in tools if Rights(config).decide_tool(principal, name).allowed]
    notes.ok(f"tools it may run: {listed(allowed)}")


def matching(principal: Principal, config: Config, known: frozenset[str]) -> Iterator[str]:
    """The rules of the policy that give this person something."""
    for number, policy in enumerate(config.collections.policy):
        held = []
        for right in RIGHTS:
            subjects = {canonical_subject(text, known) for text in getattr(policy, right)}
            if by := principal.subjects & subjects:
                held.append(f"{right} (by `{min(by)}`)")
        if held:
            yield f"collections.policy[{number}] for names `{policy.names}`: {', '.join(held)}"


def listed(items: Any) -> str:
    return ", ".join(sorted(map(str, items))) or "none"


def shown(value: Any) -> str:
    """A claim's value, not longer than a line."""
    return "missing" if value is None else str(value)[:200]
