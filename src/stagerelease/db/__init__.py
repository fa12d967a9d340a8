"""Floor 1: the database. The only floor that opens connections and the only one that commits."""
