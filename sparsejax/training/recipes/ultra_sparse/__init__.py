"""Training of ultra-sparse nets."""
