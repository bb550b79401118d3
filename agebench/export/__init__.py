"""Export of models to single files with preprocessing inside."""
