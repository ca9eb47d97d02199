"""Training. Suppresses DeepSpeed's warning about a missing GPU, since `hardware=` chooses the device explicitly."""

import logging

logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
