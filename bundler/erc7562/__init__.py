"""ERC-7562: what validation may do, judged on a trace of the real entry point.

opcodes    which opcode is what
tracer.js  collects, in the node
trace      what was collected, as data
entities   sender, factory and paymaster of an operation, their stakes, and which frames are whose
rules      the opcode, code, storage and entity rules; every refusal names its rule
"""
