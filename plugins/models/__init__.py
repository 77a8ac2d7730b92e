"""Built-in models, one file each, served through LiteLLM as `local/<file name>`."""

from plugins.models._provider import register

__all__ = ["register"]
