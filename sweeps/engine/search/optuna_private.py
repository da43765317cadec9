"""Private hooks into Optuna, written for version 5.0."""

import optuna._warnings

# Hook: the file that raises Optuna's warnings. Without it, one that is turned into an error is no user's mistake.
WARNINGS_FILE = optuna._warnings.__file__
