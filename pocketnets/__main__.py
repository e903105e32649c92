"""``python -m pocketnets``: the same as the console script."""

from __future__ import annotations

from pocketnets.command import main

if __name__ == "__main__":
    main()
