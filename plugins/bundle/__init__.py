"""Composition root: settings to parts, parts to routes and hooks."""
