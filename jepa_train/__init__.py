"""One training run of LeJEPA or Rectified LpJEPA, in plain PyTorch."""

from jepa_train.base.checkout import refuse_other_checkout

refuse_other_checkout()
