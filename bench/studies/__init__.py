"""Studies: experiments of papers repeated on this machine, one file each, and our own."""
