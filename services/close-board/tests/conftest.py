"""What the tests of the board share is in records.py beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
