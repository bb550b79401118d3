"""The local demonstration page."""
