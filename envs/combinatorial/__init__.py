"""Problems of combinatorial optimisation."""
