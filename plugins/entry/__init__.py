"""The only package that litellm_config.yaml names."""
