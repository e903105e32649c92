"""Artifacts: the deployable folder, its formats and gates, and the runtimes that execute it."""

import os

# Before ONNX Runtime is imported: release 1.31 calls its maker from a thread of its own, which has
# no business in a server and none beside a measurement.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
