"""LeJEPA, Fig. 9: encoders of many families, each with its best setting on val."""

from analysis.tables.lejepa_indomain import WITHIN as WITHIN
from analysis.tables.lejepa_indomain import build as build

TITLE = "LeJEPA: architectures; online linear probe top-1 (%)"
