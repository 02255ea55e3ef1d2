"""What is run by hand on a real cluster: `make test-cluster`."""
