"""Built-in models, one file each, served through LiteLLM as `local/<file name>`."""

from __future__ import annotations


def register() -> None:
    """Make LiteLLM know the provider `local`; once for each process."""
    from plugins.models._provider import register_provider  # whoever only lists the models needs no LiteLLM

    register_provider()
