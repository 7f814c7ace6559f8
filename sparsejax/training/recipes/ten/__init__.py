"""Training of Temporal Eigenstate Networks and generation with them."""
