"""Writes down every request as h11 reads it, one JSON object a line."""

import json
import socket
import sys
import threading

import h11

seen = sys.argv[1]
lock = threading.Lock()


def note(what):
    with lock, open(seen, "a") as file:
        file.write(json.dumps(what) + "\n")


def serve(stream):
    connection = h11.Connection(h11.SERVER)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(stream.recv(65536))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                target = request.target.decode("latin1")
                if target != "/ready":
                    method = request.method.decode()
                    note({"method": method, "target": target, "body": body.decode("latin1")})
                head = h11.Response(status_code=200, headers=[("content-length", "5")])
                stream.sendall(connection.send(head))
                stream.sendall(connection.send(h11.Data(data=b"seen\n")))
                stream.sendall(connection.send(h11.EndOfMessage()))
                if connection.our_state is h11.MUST_CLOSE:
                    return
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return
    except h11.RemoteProtocolError as error:
        # A connection that was closed between requests is no error.
        if request is not None or "closed" not in str(error):
            note({"error": str(error)})
    except OSError:
        pass
    finally:
        stream.close()


listener = socket.create_server(("127.0.0.1", 0))
print(f"echo: {listener.getsockname()[1]}", flush=True)
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
