"""``python -m bench.peers.make MODULE FILES MATERIAL FOLDER PACKAGES``: makes the files of a peer.

In a process of its own, as a converter may crash, keep threads, or need another environment.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

from bench.peers.material import VERSIONS, Material

if __name__ == "__main__":
    module, files, material, folder, *packages = sys.argv[1:]
    importlib.import_module(module).make(files, Material(Path(material)), Path(folder))
    versions = {package: version(package) for package in packages}
    Path(folder, VERSIONS).write_text(json.dumps(versions))
