"""Documents to permission-checked passages."""
