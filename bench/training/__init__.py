"""Training speed on this machine."""
