"""Training: data, losses, trainers."""
