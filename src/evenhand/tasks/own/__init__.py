"""The user's own data as a task: a table, a folder of pictures, a name on the hub."""
