"""Folders of image files, also in archives or behind a URL: files, decoding, and the identity of their content."""
