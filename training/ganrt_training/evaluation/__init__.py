"""How good generated images are: figures with their protocol, each beside the same figure for real images."""
