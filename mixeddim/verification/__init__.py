"""Verification: problems with exact solutions, and the errors and rates of the installed code.

Imports all rooms before it. Read `manufactured` and `manufactured_transport`, then `convergence`;
`python -m mixeddim.verification` prints the table, in a few minutes.
"""

from mixeddim.verification.convergence import Convergence, study_convergence, study_transport

__all__ = ["Convergence", "study_convergence", "study_transport"]
