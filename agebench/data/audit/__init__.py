"""Dataset audits: duplicates, contradictory labels, image quality."""
