"""The transformer: sizes, layers, the vision encoder, and the model that joins them."""
