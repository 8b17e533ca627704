"""Training of a quantised graph: Q/DQ ONNX as a torch module, and back."""
