"""Core ML: an ONNX graph to an .mlpackage."""
