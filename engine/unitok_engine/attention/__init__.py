"""Attention over paged keys and values: what backends share, and one file for each."""
