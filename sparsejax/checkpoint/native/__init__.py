"""What the native checkpoint directory is made of; `store` is the way in."""
