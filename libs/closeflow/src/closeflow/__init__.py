"""Domain, contracts, storage, Kafka and broker parts shared by the closeflow services."""
