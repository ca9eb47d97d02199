"""Training. DeepSpeed, which TRL loads, warns wherever there is no GPU; that is known here (`hardware=`)."""

import logging

logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
