"""Helpers that know nothing of age estimation: files, paths, progress, processes."""
