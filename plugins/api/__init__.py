"""FastAPI routers: collections, documents, jobs, tools, health."""
