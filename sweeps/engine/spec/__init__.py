"""Definition of a sweep: fields, rules, objectives, search space, cells."""
