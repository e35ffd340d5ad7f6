"""How good generated images are, measured against real ones."""
