"""How long an outbox row takes from its commit to a consumer, with our settings and with Debezium's defaults."""
