"""llama-server as xllamacpp brings it: python xllamacpp_server.py MODEL N_PARALLEL N_CTX

Everything else is as the package has it. Prints its address and stays until it is ended.
"""

import sys
import threading

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_parallel = int(sys.argv[2])
params.n_ctx = int(sys.argv[3]) * params.n_parallel
server = xllamacpp.Server(params)
print(f"listening on {server.listening_address};", flush=True)
threading.Event().wait()
