"""What is published: the events, the audit of their publication, and the replication slot."""
