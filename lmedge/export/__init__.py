"""From an exported program to ONNX files, engines and a bundle. Engine compilers are free of torch and onnx."""
