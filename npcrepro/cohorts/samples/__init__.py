"""Real images that come with the package, see ``README.md``; `make` is how they were made."""
