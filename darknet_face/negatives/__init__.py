"""Gathering of negative samples: services, HTTP client, checks, and the collection on disk."""
