"""What train.py leans on: augmentation, batches, the pictures of each step, and the history."""
