"""A first config for someone's own pictures."""
