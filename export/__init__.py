"""Export: how a network leaves torch, and the proof that its artifacts agree with it."""
