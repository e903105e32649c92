"""What only a GPU can show: ``python -m bench gpu-check``, a process for each step."""
