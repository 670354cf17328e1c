"""Attention over paged keys and values: the contract, and one file for each backend."""
