"""Exported file formats: TorchScript, ONNX, torch.export."""
