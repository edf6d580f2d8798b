"""Problems with a true reward and a proxy that pays for something else."""
