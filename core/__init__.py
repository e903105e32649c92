"""Shared basics, without torch: errors, files, command line, machine, records, preprocessing."""
