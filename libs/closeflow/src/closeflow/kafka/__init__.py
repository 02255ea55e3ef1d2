"""The consume loop, producers and dead letters; the only importer of aiokafka."""
