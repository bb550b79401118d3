"""agebench: how good is an age estimator on faces it was not trained for, and can one believe the number?"""

__version__ = "0.1.0"
