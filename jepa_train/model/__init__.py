"""Encoder, heads, batch norm, averaged weights and their optimiser."""
