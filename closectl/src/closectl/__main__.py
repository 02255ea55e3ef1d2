"""Run the command line: `closectl` or `python -m closectl`."""

from closectl.app import app

if __name__ == "__main__":
    app(prog_name="closectl")
