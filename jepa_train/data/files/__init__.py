"""Folders of image files: which files are used, how each is decoded, and the identity of their content."""
