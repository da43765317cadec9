"""Folders and files on a disk or in an object store, by path or URL."""
