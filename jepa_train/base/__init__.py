"""Errors, seeds, security, preemption and system metrics: what every other folder may import."""
