"""Measures artifacts on a phone through adb, with the benchmark tools of the runtimes."""
