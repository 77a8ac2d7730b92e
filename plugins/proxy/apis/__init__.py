"""The loop's output as each kind of client takes it, one module each."""
