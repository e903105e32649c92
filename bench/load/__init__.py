"""Measures a server under load, and the same work without HTTP for comparison."""
