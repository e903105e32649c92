"""Serving: the HTTP service, its settings and its start."""
