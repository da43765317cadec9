"""Names of the scales of a study, as experiments carry them: "lejepa_views_mini"."""

SCALE_NAMES = ("mini", "small", "lab", "paper")
