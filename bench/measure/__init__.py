"""Timing and statistics that all measurements use."""
