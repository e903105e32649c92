"""Graph rewrites: the same function of pixels, computed in less time."""
