"""Command line of sweeps."""
