"""Where a network's time goes, layer by layer, and what bounds it."""
