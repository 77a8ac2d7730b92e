"""The words that all rooms share: contracts, ports, settings, errors."""
