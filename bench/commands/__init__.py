"""What ``python -m bench`` can be told to do, a file each."""
