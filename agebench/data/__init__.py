"""Samples, readers, splits, faces, cache, augmentation: everything before a model sees a pixel."""
