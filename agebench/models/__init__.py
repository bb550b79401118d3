"""Models: backbones, heads, published architectures."""
