"""The GPU check, ``python -m bench gpu-check``, which runs each step in its own process."""
