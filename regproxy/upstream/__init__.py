"""Towards registries: exchanges over treq, redirects, and the transfer of bodies."""
