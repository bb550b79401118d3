"""Many runs: the matrix of a suite, what of it is done, and who does the rest."""
