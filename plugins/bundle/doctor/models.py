"""Each model of LiteLLM's YAML, asked one tiny question, and what Ollama has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from plugins.bundle.doctor.findings import Finding, Notes, Redact, attempt, counted, reason
from plugins.core.errors import ModelUnavailable
from plugins.proxy.probe import Deployment, ask, deployments, dimension, mapping

MODEL_S = 60.0
"""Of one model's answer: a local one may have to be loaded first."""
OLLAMA_S = 5.0
AT_ONCE = 4
OLLAMA = ("ollama", "ollama_chat")
LISTED = 20
"""Names of models in one line."""


async def examine_models(
    config: Mapping[str, Any], rows: Sequence[tuple[str, str, int]], redact: Redact
) -> list[Finding]:
    """What each deployment answers; ``rows``: collection, its embedding model and dimension."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(deployment: Deployment) -> list[Finding]:
        async def examine(notes: Notes) -> None:
            await examine_model(notes, deployment, rows)

        async with gate:
            return await attempt(f"model {deployment.name}", examine, redact, MODEL_S + 5)

    entries = deployments(config)
    answers = await asyncio.gather(*(one(deployment) for deployment in entries))
    answering = {d.name for d, found in zip(entries, answers, strict=True) if not failed(found)}
    return [
        finding
        for deployment, found in zip(entries, answers, strict=True)
        for finding in softened(deployment.name, found, config, answering)
    ]


def failed(findings: Sequence[Finding]) -> bool:
    return any(finding.level == "fail" for finding in findings)


def softened(
    name: str, findings: Sequence[Finding], config: Mapping[str, Any], answering: set[str]
) -> list[Finding]:
    """A model that fails while a fallback of it answers is something to look at, not a failure."""
    by_name = {
        key: names
        for entry in mapping(config, "router_settings").get("fallbacks") or ()
        for key, names in dict(entry).items()
    }
    instead = next((other for other in by_name.get(name) or () if other in answering), None)
    if instead is None or not failed(findings):
        return list(findings)
    return [
        Finding("warn", f.part, f"{f.found}; its fallback `{instead}` answers instead", f.do)
        if f.level == "fail"
        else f
        for f in findings
    ]


async def examine_model(notes: Notes, deployment: Deployment, rows: Sequence[tuple[str, str, int]]) -> None:
    if deployment.unset:
        notes.fail(
            f"the environment variable {', '.join(deployment.unset)} is not set",
            "Set it in the environment or in .env.",
        )
    elif deployment.wildcard:
        notes.ok(f"stands for many (`{deployment.model}`), none of them is called")
    elif deployment.provider in OLLAMA and not deployment.params.get("api_base"):
        notes.fail("has no `api_base`: LiteLLM would start an Ollama of its own", "Set `api_base`.")
    elif deployment.mode == "embedding":
        await examine_embedding(notes, deployment, rows)
    elif deployment.mode == "chat":
        await examine_chat(notes, deployment)
    else:
        notes.ok(f"is of the kind `{deployment.mode}`, which is not called")


async def examine_chat(notes: Notes, deployment: Deployment) -> None:
    rag = bool(deployment.info.get("rag"))
    if rag and deployment.provider == "ollama":
        notes.warn("`ollama/` breaks tool calls", "Write `model: ollama_chat/...`.")
    try:
        answer = await ask(deployment, MODEL_S)
    except ModelUnavailable as with_tool:
        try:
            await ask(deployment, MODEL_S, tool=False)
        except ModelUnavailable:
            notes.fail(f"does not answer: {with_tool.message}", "Mend that, or take it out of model_list.")
            return
        _toolless(notes, rag, "answers, and refuses requests with tools")
        return
    if answer.called:
        notes.ok("answers, and calls tools")
    elif answer.finished:
        _toolless(notes, rag, "answers, and did not call the tool that it was asked to call")
    else:
        _toolless(notes, rag, "answers, and thought for too long to call a tool")


def _toolless(notes: Notes, rag: bool, found: str) -> None:
    if rag:
        notes.warn(f"{found}, but has `rag`", "Documents need a model that calls tools; or take `rag` out.")
    else:
        notes.ok(found)


async def examine_embedding(
    notes: Notes, deployment: Deployment, rows: Sequence[tuple[str, str, int]]
) -> None:
    try:
        length = await dimension(deployment, MODEL_S)
    except ModelUnavailable as error:
        notes.fail(f"does not answer: {error.message}", "Mend that, or take it out of model_list.")
        return
    said = deployment.info.get("output_vector_size")
    if said is not None and said != length:
        notes.fail(
            f"gives vectors of {length}, and `model_info.output_vector_size` is {said}",
            "Correct it, or `model`.",
        )
    else:
        notes.ok(f"gives vectors of {length}")
    for collection, model, wanted in rows:
        if model == deployment.name and wanted != length:
            notes.fail(
                f"the collection `{collection}` was made with vectors of {wanted}",
                "Configure the model that it was made with, or make the collection anew.",
            )


def ollama_servers(config: Mapping[str, Any]) -> dict[str, list[Deployment]]:
    """Addresses of Ollama and the deployments there."""
    found: dict[str, list[Deployment]] = {}
    for deployment in deployments(config):
        if deployment.provider in OLLAMA and (base := deployment.params.get("api_base")):
            found.setdefault(str(base).rstrip("/"), []).append(deployment)
    return found


async def examine_ollama(notes: Notes, address: str, configured: Sequence[Deployment]) -> None:
    """What an Ollama server has, and whether the configured models are there and can do what they should."""
    try:
        async with httpx.AsyncClient(timeout=OLLAMA_S, base_url=address) as client:
            tags = (await client.get("/api/tags")).raise_for_status().json()
            there = sorted(str(model["name"]) for model in tags["models"])
            more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
            notes.ok(
                f"{address} has {counted(len(there), 'model')}: {', '.join(there[:LISTED]) or 'none'}{more}"
            )
            for deployment in configured:
                if not deployment.wildcard:
                    await examine_ollama_model(notes, client, deployment, there)
    except httpx.HTTPStatusError as error:
        notes.fail(f"{address} answers {error.response.status_code}", "Check that `api_base` is an Ollama.")
    except httpx.HTTPError as error:
        notes.warn(
            f"{address} cannot be reached: {reason(error)}",
            "Start Ollama (`ollama serve`), or check `api_base` and the firewall.",
        )
    except (ValueError, KeyError, TypeError):
        notes.fail(f"{address} does not answer as Ollama does", "Check that `api_base` is an Ollama.")


async def examine_ollama_model(
    notes: Notes, client: httpx.AsyncClient, deployment: Deployment, there: Sequence[str]
) -> None:
    name = deployment.model.partition("/")[2]
    if name not in there and f"{name}:latest" not in there:
        notes.warn(
            f"`{deployment.name}` needs `{name}`, which is not there", f"Run `ollama pull {name}` there."
        )
        return
    shown = (await client.post("/api/show", json={"model": name})).raise_for_status().json()
    capabilities = [str(each) for each in shown.get("capabilities") or ()]
    notes.ok(f"`{name}` can: {', '.join(capabilities) or 'not said'}")
    if deployment.info.get("rag") and capabilities and "tools" not in capabilities:
        notes.warn(f"`{deployment.name}` has `rag`, and `{name}` cannot call tools", "Take a model that can.")
    if deployment.info.get("rag") and not deployment.params.get("num_ctx"):
        notes.warn(
            f"`{deployment.name}` has no `num_ctx`: Ollama cuts long requests without a word",
            "Set `num_ctx` (8192, for instance) in its litellm_params.",
        )
