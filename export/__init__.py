"""How a network leaves torch: artifacts, the formats that fill them, and proof that they agree."""
