"""What the families share: parts of configs, names and prompts, and the way to load a model."""
