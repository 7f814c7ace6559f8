"""Pictures of models and measurements; matplotlib is imported inside the functions (extra ``plots``)."""
