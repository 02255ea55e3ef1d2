"""The bounded pool of senders: a claimed send, the call, the evidence in Kafka, the recorded answer."""
