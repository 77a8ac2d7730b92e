"""Alembic's migrations of the collections' database; run by `plugins.collections.database.migrate`."""
