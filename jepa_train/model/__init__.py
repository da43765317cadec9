"""Encoder, heads, averaged weights and their optimiser."""
