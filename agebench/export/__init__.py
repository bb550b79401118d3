"""Models as single files, preprocessing inside."""
