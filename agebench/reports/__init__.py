"""Reports, tables and plots from recorded results."""
