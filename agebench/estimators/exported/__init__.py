"""Models that `agebench export` wrote, read again."""
