"""`make soak`: mixed load on a real gateway process; memory must be flat and nothing may be lost.

`mock.py` is the upstream, `setup.py` the project and its keys, `clients.py` the load, `changes.py` what an
operator does meanwhile, `watch.py` the process's memory, `audit.py` the books at the end.
"""
