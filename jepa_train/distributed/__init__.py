"""Collectives over the ranks of a run, and private parts of PyTorch."""
