"""The program `xlgen`: one module a command, put together in `main`."""
