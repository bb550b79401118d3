"""Age estimators behind one interface: trained networks, exported files, external models, functions."""
