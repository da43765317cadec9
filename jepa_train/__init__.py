"""One training run of LeJEPA or Rectified LpJEPA, in plain PyTorch."""

import os

from jepa_train.base.checkout import refuse_other_checkout

os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch reads it when it is imported
refuse_other_checkout()
