"""All SQL; the only importer of sqlalchemy and psycopg."""
