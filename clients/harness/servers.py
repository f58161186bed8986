"""The real server as a process, a proxy that cuts answers, an impostor, and certificates."""

import http.client
import json
import os
import queue
import re
import signal
import socket
import socketserver
import subprocess
import threading
import time

#: How long a server may take to start or to end, in seconds: machines of CI can be busy.
PATIENCE = 60


class Server:
    """`locker server` on a free port. A restart uses the same port and the same store."""

    def __init__(self, binary, folder, args=(), env=None, scheme="http", store="memory:"):
        self.binary, self.folder, self.args, self.scheme = binary, folder, list(args), scheme
        self.store = store
        self.env = {**os.environ, **(env or {})}
        self.port, self.process = 0, None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def url(self):
        return f"{self.scheme}://{self.address}"

    def start(self):
        log = os.path.join(self.folder, "server.log")
        with open(log, "ab") as out:
            where = out.tell()
            command = [self.binary, "server", "--store", self.store, "--log-level", "warn",
                       "--listen", self.address, "--drain", "1s", *self.args]  # fmt: skip
            self.process = subprocess.Popen(command, stderr=out, stdout=out, env=self.env, stdin=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with open(log, encoding="utf-8") as text:
                text.seek(where)
                said = text.read()
            found = re.search(r" listening on https?://[^:,]+:(\d+)", said)
            if found:
                self.port = int(found.group(1))
                return
            if self.process.poll() is not None:
                raise AssertionError(f"the server has ended: {said}")
            time.sleep(0.02)
        raise AssertionError("the server does not start")

    def end(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)

    def signal(self, how):
        self.process.send_signal(how)

    def ask(self, method, path, body=None):
        """One plain request of somebody else."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return {"status": response.status, **answer}


class Between:
    """Listens in front of a server: passes requests on, and cuts connections after the server has answered."""

    def __init__(self, server):
        #: Starts of requests, such as `PUT /api/v1/claims`, whose next answer is thrown away.
        self.cuts = []
        #: The header `Authorization` of each request, or None.
        self.authorizations = []
        self.was_cut = queue.Queue()
        between = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                request = _message(self.rfile)
                while request:
                    text = request.decode("latin-1")
                    found = re.search(r"(?im)^authorization: *([^\r\n]*)", text)
                    between.authorizations.append(found.group(1) if found else None)
                    with socket.create_connection(("127.0.0.1", server.port)) as upstream:
                        upstream.sendall(request)
                        answer = _message(upstream.makefile("rb"))
                    cut = next((one for one in between.cuts if text.startswith(one)), None)
                    if cut:
                        between.cuts.remove(cut)
                        between.was_cut.put(cut)
                        return
                    self.wfile.write(answer)
                    request = _message(self.rfile)

        self.listener = _listen(Handler)
        self.url = f"http://127.0.0.1:{self.listener.server_address[1]}"

    def end(self):
        self.listener.shutdown()
        self.listener.server_close()


class Impostor(Between):
    """Answers each request with the same status: a proxy without a server, or a redirect."""

    def __init__(self, status, location):
        self.authorizations = []
        impostor = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                if _message(self.rfile):
                    impostor.authorizations.append(None)
                    head = f"HTTP/1.1 {status} Other\r\nLocation: {location}\r\n"
                    self.wfile.write(f"{head}Content-Length: 2\r\nConnection: close\r\n\r\nno".encode())

        self.listener = _listen(Handler)
        self.url = f"http://127.0.0.1:{self.listener.server_address[1]}"


def _listen(handler):
    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request, client_address):
            """A client or a server that goes away in the middle is what this is for."""

    listener = Listener(("127.0.0.1", 0), handler)
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    return listener


def _message(file):
    """A whole HTTP message with a length, or nothing."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return b""
        head += line
    found = re.search(rb"(?im)^content-length: *(\d+)", head)
    return head + (file.read(int(found.group(1))) if found else b"")


def certificates(folder):
    """An authority, a certificate for 127.0.0.1, and one of a client, by file name in the folder."""

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Example CA")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"), ("client", "keyUsage=digitalSignature")):
        with open(os.path.join(folder, f"{name}.ext"), "w", encoding="utf-8") as out:
            out.write(extension + "\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")  # fmt: skip
