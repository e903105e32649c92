"""A server under load, beside the same work without HTTP."""
