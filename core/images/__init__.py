"""Image formats: estimates of decoding cost, and what Pillow does not handle itself."""
