"""Documents, sign-in and tools for the stock LiteLLM proxy."""
