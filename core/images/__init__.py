"""Image formats: what decoding one costs, and what Pillow leaves to be done."""
