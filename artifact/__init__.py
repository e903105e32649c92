"""Artifacts: the deployable folder, its formats and gates, and the runtimes that execute it."""

import os

# Set before ONNX Runtime is imported: release 1.31 sends telemetry from a thread of its own, which
# a server must not do and which would disturb measurements.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
