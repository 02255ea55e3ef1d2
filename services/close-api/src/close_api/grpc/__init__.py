"""The gRPC door: it reads a message, hands it to the use case and writes the answer. It decides nothing."""
