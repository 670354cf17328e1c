"""Engines that a model may run on: our own, and those of others behind the same protocol."""
