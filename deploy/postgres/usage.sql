-- The usage tables of the routers have a database of their own beside MLflow's.
CREATE DATABASE usage;
