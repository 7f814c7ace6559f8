"""One recipe per family: model, data, loss and loop put together."""
