"""Studies, one short file each; sweeps.engine runs them."""
