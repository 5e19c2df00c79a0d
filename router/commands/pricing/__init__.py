"""The price table, shown and compared with a public one."""
