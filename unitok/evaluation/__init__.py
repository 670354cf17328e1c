"""Evaluations: what a model gets right."""
