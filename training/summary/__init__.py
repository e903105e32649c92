"""The summary of a finished run: README, pictures and tables."""
