"""Benchmarks: latency, layers, load and training speed on this machine."""
