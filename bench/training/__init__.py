"""How fast a network trains on this machine."""
