"""Tables, figures and notebooks, built from the MLflow store alone."""

import warnings

# MLflow imports tqdm, which warns in a notebook without ipywidgets.
warnings.filterwarnings("ignore", message="IProgress not found")
