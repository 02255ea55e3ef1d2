"""The same steps as a DBOS workflow per close, durable in the same PostgreSQL, in one process as it is usually run."""
