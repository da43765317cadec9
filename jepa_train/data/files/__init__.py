"""Folders of image files, also in archives or behind a URL: their files, decoding, and the identity of their content."""
