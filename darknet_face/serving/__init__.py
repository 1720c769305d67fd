"""The parts of serve.py: what answers a request, what batches pictures, the page."""
