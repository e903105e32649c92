"""Runtimes, one module each, with the same interface."""
