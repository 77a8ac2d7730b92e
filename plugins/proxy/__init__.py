"""The LiteLLM adapter: auth hook, chat hook, tool loop, model calls, mounting."""
