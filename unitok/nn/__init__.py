"""The model: sizes, layers, the vision encoder, what joins them, and their faster forms."""
