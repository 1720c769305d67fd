"""The trained network: its weights in every file format, and the graphs that classify."""
