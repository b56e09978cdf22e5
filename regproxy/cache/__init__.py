"""What is kept on disk and how it gets there: store, index, fills, freshness."""
