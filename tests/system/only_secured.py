"""What of these tests is about links that are secured, as those of servers in containers are not."""

from typing import Final

ONLY_SECURED: Final = ["test_kafka_access.py", "test_refused_links.py", "test_rotation.py", "test_topics_at_start.py"]
