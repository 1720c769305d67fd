"""What runs the network: a batch of images in, class probabilities or maps out."""
