"""Folders of checkpoints: where they are, their settings, their weights."""
