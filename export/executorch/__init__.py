"""ONNX graphs and networks of torch to .pte files, for ExecuTorch on phones."""
