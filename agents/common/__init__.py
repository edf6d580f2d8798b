"""What several agents share: implicit value learning, divergences, Gaussian policies."""
