"""Measures the latency of artifacts in each runtime, picks what to serve, writes the report."""
