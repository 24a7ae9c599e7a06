"""`python -m read_states.load`: the service and its twin under load, and a report."""

import sys

from read_states.load.measure import main

sys.exit(main())
