"""What the weights are for: complete programs that start from them."""
