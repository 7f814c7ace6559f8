"""Force fields beside the same network in torch, and what they cost in dynamics."""
