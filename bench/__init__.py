"""The benchmark: the library beside the bare operations and the Python queues that users would pick instead."""
