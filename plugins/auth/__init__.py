"""Identity sources, one module each: a :class:`plugins.core.ports.IdentitySource`."""
