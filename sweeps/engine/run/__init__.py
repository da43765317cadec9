"""Execution of a plan: session, callbacks, display, cost."""
