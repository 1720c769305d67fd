"""What inference.py does with named pictures: find them, classify them, write the results."""
