"""moto's server with DynamoDB as DynamoDB is: one request on an item at a time.

moto checks a condition and writes in two steps without a lock, so that two conditional puts in threads can both win.
"""

import sys
import threading

from moto.dynamodb.responses import DynamoHandler
from moto.server import main

one_at_a_time = threading.Lock()
unlocked_call = DynamoHandler.call_action


def call_action(self):
    with one_at_a_time:
        return unlocked_call(self)


DynamoHandler.call_action = call_action

if __name__ == "__main__":
    main(["--host", "127.0.0.1", "--port", sys.argv[1]])
