"""Statistics that the methods are made of, with their kernels."""
