"""One training run of LeJEPA or Rectified LpJEPA, in plain PyTorch."""
