"""Training steps on several devices: measured on virtual ones, and where they stop paying."""
