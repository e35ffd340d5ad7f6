"""Training of PyTorch GANs and their export to ONNX generators. Needs the extra ``train``."""
