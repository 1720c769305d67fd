"""What the scripts run on: TensorFlow, imported quietly, and one process or several."""
