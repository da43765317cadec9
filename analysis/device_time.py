"""Device time of cells for display, with its unit: GPU-hours, or CPU-worker-hours where no GPU was used."""

import re


def unit_of(resources: str) -> str:
    """Unit of a trial's time, by the text that the ledger stores; a GPU has a number before it, unlike a CPU."""
    return "GPU-hours" if re.search(r" CPU, [\d.]+ ", resources) else "CPU-worker-hours"


def device_time(hours: float, unit: str, lost_hours: float = 0.0) -> str:
    """A device time for display: "0.14 GPU-hours", or "12 GPU-seconds" where the hours would round to 0.00.

    Args:
        unit: of the hours, see unit_of.
        lost_hours: part of them whose training was lost with workers; it is named if there is any.
    """
    lost = f" ({device_time(lost_hours, unit)} of them lost with workers)" if lost_hours else ""
    if hours < 0.005:
        return f"{3600 * hours:.2g} {unit.replace('hours', 'seconds')}{lost}"
    return f"{hours:.2f} {unit}{lost}"
