"""Measures the training speed on this machine."""
