"""`closectl verify`: check the invariants on the database, the topics and the broker, and say which it could."""

from closectl.verifying.printing import print_report, report_json
from closectl.verifying.report import Report
from closectl.verifying.run import verify

__all__ = ["Report", "print_report", "report_json", "verify"]
