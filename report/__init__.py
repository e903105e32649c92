"""Reports: a list of sections, and a renderer for each output format."""
