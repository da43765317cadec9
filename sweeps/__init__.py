"""What to run: one short file per study; the machinery is in sweeps.engine."""
