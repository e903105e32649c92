"""A report is a list of sections, computed once; each output format has one renderer."""
