"""Parts of a table: cells, statistics, layout, rendering."""
