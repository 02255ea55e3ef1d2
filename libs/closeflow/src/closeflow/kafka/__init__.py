"""The consume loop, producers and dead letters; the only importer of aiokafka."""

from aiokafka.errors import KafkaConnectionError, KafkaError

from closeflow.kafka.apply_topics import ensure_topics
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.consume import Subscription, run_consumer
from closeflow.kafka.consumer_progress import ConsumerProgress
from closeflow.kafka.dlq import DeadLetterLimit, DeadLetterLimitExceeded
from closeflow.kafka.dlq_reader import DlqReader, DlqRecord, open_dlq_reader
from closeflow.kafka.producer import Outgoing, Producer, open_producer
from closeflow.kafka.records import DeadLetter, Record, Rejected
from closeflow.kafka.timing import ConsumerTiming
from closeflow.kafka.topics import TopicMismatch, TopicMissing, TopicSpec, load_topics, require_topics
from closeflow.kafka.topics_at_start import TopicsDiffer, wait_until_topics_fit

__all__ = [
    "ConsumerProgress",
    "ConsumerTiming",
    "DeadLetter",
    "DeadLetterLimit",
    "DeadLetterLimitExceeded",
    "DlqReader",
    "DlqRecord",
    "KafkaConnection",
    "KafkaConnectionError",
    "KafkaError",
    "Outgoing",
    "Producer",
    "Record",
    "Rejected",
    "Subscription",
    "TopicMismatch",
    "TopicMissing",
    "TopicSpec",
    "TopicsDiffer",
    "ensure_topics",
    "load_topics",
    "open_dlq_reader",
    "open_producer",
    "require_topics",
    "run_consumer",
    "wait_until_topics_fit",
]
