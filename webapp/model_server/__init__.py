"""The one client of the model server, and of vLLM, which answers the same requests.

connection.py   where the server is, and how long to wait for it
serving.py      which models it serves: list, load, unload, try
completions.py  replies, streamed or whole, and token counts
collected.py    a whole answer out of the chunks of a streamed one
refusals.py     what an error of the network or of the server means to people
"""
