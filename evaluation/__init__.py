"""How good a classifier is: figures, robustness, heat maps, charts and the report."""
