"""Timing: the clock, the rounds and the statistics behind every measurement."""
