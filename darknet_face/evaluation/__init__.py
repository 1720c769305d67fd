"""How good a classifier is: metrics, robustness, charts and the report."""
