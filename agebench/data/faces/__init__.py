"""Face alignment, crops, regions, the face cache."""
