"""Countries in virtual time: the batching core as it is, around engines that only take time."""
