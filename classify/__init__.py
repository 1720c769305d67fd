"""What inference.py does with pictures of any kind: find them, and write the answers."""
