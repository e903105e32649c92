"""``python -m pocketnets``: the console script where it is not installed."""

from __future__ import annotations

from pocketnets.command import main

if __name__ == "__main__":
    main()
