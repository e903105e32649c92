"""The questions of the papers, one file each."""
