"""One command and one import for all of it."""
