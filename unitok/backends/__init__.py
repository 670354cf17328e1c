"""Other engines that run our models."""
