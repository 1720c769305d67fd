"""How good a classifier is: figures, robustness, heat maps and the report."""
