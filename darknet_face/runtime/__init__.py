"""What the scripts run on: TensorFlow of either version, one process or several, safe writing."""
