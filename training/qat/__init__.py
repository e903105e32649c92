"""Quantization-aware fine-tuning of int8 graphs."""
