"""Problems whose world of deployment differs from the world of training."""
