"""Dataset storage: archives, downloads, imports, verification."""
