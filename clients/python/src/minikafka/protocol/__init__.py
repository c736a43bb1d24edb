"""The protocol without any I/O: frames, messages, batch columns, and the state machines of producer, consumer and group
member. No socket, clock or random number is used here: bytes, times and seeds are passed in, so everything replays.

Both clients stand on it: ``minikafka.aio`` moves the bytes, and ``minikafka`` runs that on a thread.
"""
