"""Start the command, with threads that wait without spinning: see `experiments.run.command`."""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

from experiments.measure.gradients.measure import main

sys.exit(main())
