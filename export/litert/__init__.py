"""ONNX graphs to .tflite files, for LiteRT on phones."""
