"""Our timer, held against the runtimes' own tools."""
