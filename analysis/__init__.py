"""What we learned: tables and notebooks, built from the MLflow store and from nothing else of this project."""

import warnings

# MLflow imports tqdm, which in a notebook without ipywidgets warns of a progress bar that nobody here shows.
warnings.filterwarnings("ignore", message="IProgress not found")
