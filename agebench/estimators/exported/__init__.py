"""Read files that `agebench export` wrote."""
