"""What train.py leans on: augmentation, batches, the images of each step, and the history."""
