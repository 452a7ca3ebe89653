"""Networks for use without PyTorch: ONNX files, and the runtimes that answer in a network's place."""
