"""A search for the recipe and the network: top-1 against measured latency."""
