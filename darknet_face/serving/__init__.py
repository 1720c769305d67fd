"""What serves the page and the endpoint: server, application, queue and page."""
