"""Neural preconditioners and a differentiable FGMRES for the problems of `mixeddim`."""
