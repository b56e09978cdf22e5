"""Towards clients: listeners, the site with its limits, the pipeline, delivery, the access log."""
