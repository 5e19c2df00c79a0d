"""The call to a model: where it is asked, over which connection, how often, and which model stands in."""
