"""regproxy beside nginx and docker-registry, in one run on one machine, as medians and ratios."""
