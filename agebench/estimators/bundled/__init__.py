"""Networks of external models whose packages ship weights without a graph; used as callables by the models' cards."""
