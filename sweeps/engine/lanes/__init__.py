"""Worker groups that outlive their trials."""
