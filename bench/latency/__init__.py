"""Latency of artifacts in each runtime, the pick, and the report."""
