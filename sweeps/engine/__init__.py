"""Running sweeps: plan the cells, read the ledger, train the missing ones, publish the table."""

from sweeps.engine.errors import install
from sweeps.engine.launch import main
from sweeps.engine.objective import Asha, LabelFree
from sweeps.engine.spec import BestOf, Sweep

__all__ = ["Asha", "BestOf", "LabelFree", "Sweep", "main"]

install()
