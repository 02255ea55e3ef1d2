"""What the services need before they start: the database's schema and roles, the topics, the outbox connector."""
