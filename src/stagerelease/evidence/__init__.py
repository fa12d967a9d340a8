"""Floor 4: typed measurements that release decisions rest on, and coordination records."""
