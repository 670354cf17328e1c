"""What pictures cost on many GPUs, on paper: computed from what one GPU was measured to do."""
