"""Benchmarks: what a network costs on this machine, next to what its MACs promise."""
