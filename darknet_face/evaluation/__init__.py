"""How good a classifier is: figures, robustness, charts and the report."""
