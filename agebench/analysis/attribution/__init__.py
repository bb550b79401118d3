"""Attribution maps: which pixels an estimated age depends on."""
