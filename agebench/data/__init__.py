"""Datasets: samples, readers, storage, splits, faces, audits."""
