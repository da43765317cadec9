"""Search spaces: dotted key -> distribution, one short file per space."""
