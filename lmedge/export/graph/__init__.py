"""Passes over an ONNX graph, one per file: each takes a model and returns a new one. `compare` judges what they did."""
