"""The doors: they parse and render, they never decide."""
