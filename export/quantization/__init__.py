"""Converts float32 graphs to float16 and int8, and measures the error of each layer."""
