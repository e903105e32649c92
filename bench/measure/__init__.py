"""How anything here is timed."""
