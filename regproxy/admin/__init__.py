"""For the operator: health."""
