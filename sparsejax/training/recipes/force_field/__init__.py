"""Training, labelling, dynamics and screening with force fields, as the command line offers them."""
