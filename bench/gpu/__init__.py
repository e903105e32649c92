"""The GPU check, ``python -m bench gpu-check``: a process for each step."""
