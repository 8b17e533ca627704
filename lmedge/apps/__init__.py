"""What landmarks are for: programs that take faces from a `FaceLandmarker` and make something of them. No torch, no onnx."""
