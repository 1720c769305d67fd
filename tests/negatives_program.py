"""gen_neg_samples.py as a program of its own, with the short waits of the tests.

    python negatives_program.py SECONDS ...

``SECONDS`` is the read time-out; the other arguments go to the script.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import gen_neg_samples  # noqa: E402
from darknet_face.negatives import collector  # noqa: E402
from darknet_face.negatives.client import Patience  # noqa: E402

# Long enough for a busy machine. Tests with responses that stall take HURRIED instead.
PATIENCE = Patience(connect_timeout=10, read_timeout=10, time_limit=30, retries=2, backoff=0.02,
                    longest_wait=5)
HURRIED = {"read_timeout": 0.5, "time_limit": 1.5}

if __name__ == "__main__":
    seconds = float(sys.argv.pop(1))
    gen_neg_samples.PATIENCE = PATIENCE._replace(
        read_timeout=seconds, time_limit=3 * seconds, retries=5)
    collector.MAX_DOWNLOAD_BYTES = 200000
    gen_neg_samples.main()
