"""One module per stage; its `main` shows the whole stage."""
