"""Plan of a launch: required cells, their states, what is left to run."""
