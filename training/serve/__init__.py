"""The model server: models over HTTP, through the interface that vLLM offers.

gate.py lets requests in, app.py routes them, protocol.py says what they may hold, replies.py what an answer looks like,
hub.py fetches models of the hub, pool.py keeps them, encoder.py runs their tokenizers, scheduler.py their engines in
one thread, fair.py says whose turn it is, metrics.py counts.
"""
