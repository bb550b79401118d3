"""The pieces of work that `compare.py` gives to agebench and to other packages."""
