"""`python -m packnet_tf.apps` runs `packnet`."""

import sys

from packnet_tf.apps.main import main

sys.exit(main())
