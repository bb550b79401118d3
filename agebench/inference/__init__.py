"""Inference on unlabeled images: prediction, annotation, demonstration, hub."""
