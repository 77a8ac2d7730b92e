"""Built-in models, one module each, served by LiteLLM as `local/<name>`."""
