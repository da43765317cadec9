"""The Ray session, its nodes and their resources."""
