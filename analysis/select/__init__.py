"""Selection of runs: objectives, current cells, Pareto sets."""
