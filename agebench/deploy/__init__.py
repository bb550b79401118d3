"""A model at work on images that nobody labelled: opened, asked, its answers written and drawn."""
