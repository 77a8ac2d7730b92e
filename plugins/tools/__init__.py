"""Tools, one module each: a :class:`plugins.core.ports.Tool`."""
