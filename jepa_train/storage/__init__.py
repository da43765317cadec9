"""Folders and files by path or URL."""
