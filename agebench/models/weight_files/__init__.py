"""Published weights of face-recognition backbones: where they come from, how they are read, and their local copies."""
