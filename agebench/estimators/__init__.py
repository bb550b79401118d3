"""Age estimators behind one interface: trained runs, exported files, external models."""
