"""Compares our timer with the runtimes' own tools."""
