"""What may vary: dotted key -> domain; one short file per space."""
