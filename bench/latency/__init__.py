"""How long artifacts take in each runtime, which to pick, and what their MACs say of it."""
