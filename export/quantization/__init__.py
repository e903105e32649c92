"""A float32 graph to float16 and to int8, and what that costs each layer."""
