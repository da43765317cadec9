"""What we learned: tables and notebooks, built from the MLflow store and from nothing else of this project."""
