"""One request and what its answer means.

An answer with a ``code`` of the server is final. After a network error, 408, 429, 5xx or an answer of something else
(a proxy whose server is away), the outcome is unknown and the caller asks again. Redirects are never followed, so
credentials go to the named servers only.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from typing import Any, NamedTuple, Optional, Sequence
from urllib.parse import quote, unquote, urlencode, urlsplit

from .errors import Hopeless, LockerError, NoAnswer, refused

#: How long one request may take, in addition to the wait that it asks the server for.
PATIENCE = 15.0
#: How long connecting may take.
CONNECT = 5.0
#: The longest answer that is read, in bytes.
BODY_BYTES = 32 * 1024 * 1024
#: Statuses below 500 that something between client and server answers while the server is away.
PASSING = {404, 408, 410, 425, 429}


class Answer(NamedTuple):
    status: int
    body: Any


class _Server:
    """A server, without its credentials in any text."""

    def __init__(self, text: str) -> None:
        text = text.strip().rstrip("/")
        try:
            url = urlsplit(text)
            port = url.port
        except ValueError:
            raise LockerError("the server's address is not a URL such as http://HOST:8910") from None
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise LockerError("the server's address must be http:// or https://, a host and perhaps a port and a path")
        self.tls = url.scheme == "https"
        self.host, self.path = url.hostname, url.path
        self.port = port or (443 if self.tls else 80)
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.name = f"{url.scheme}://{host}:{self.port}{self.path}"
        self.userinfo = None
        if url.username is not None:
            self.userinfo = (unquote(url.username), unquote(url.password or ""))
        self.header: Optional[str] = None
        self.hopeless = False


class Transport:
    """Requests to the servers of one store. Threads may share it."""

    def __init__(
        self,
        urls: Sequence[str],
        username: Optional[str],
        password: Optional[str],
        token: Optional[str],
        ca_file: Optional[str],
        cert_file: Optional[str],
        key_file: Optional[str],
    ) -> None:
        self._servers = [_Server(url) for url in urls]
        if not self._servers:
            raise LockerError("no server is named")
        if token is not None and (username is not None or password is not None):
            raise LockerError("give either a token, or a user name and a password")
        own = [server for server in self._servers if server.userinfo]
        if own and len(own) < len(self._servers) and token is None and username is None:
            raise LockerError("only some of the servers have a user and password in their URL: write them into each")
        for server in self._servers:
            server.header = _header(server, username, password, token)
        self._tls = _context(ca_file, cert_file, key_file) if any(s.tls for s in self._servers) else None
        self._current = 0
        self._met = False
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"Transport({self.names})"

    @property
    def names(self) -> str:
        """The servers' addresses, without credentials."""
        return ", ".join(server.name for server in self._servers)

    def send(self, method: str, path: str, body: Any = None, patience: float = PATIENCE) -> Answer:
        """Sends one request. Returns any 2xx, and a 423 that says who waits for what; raises in all other cases.

        A server that cannot be connected to has not seen the request, so the next one is asked at once.
        """
        for left in range(len(self._servers) - 1, -1, -1):
            with self._guard:
                index = self._current
            server = self._servers[index]
            connected = False
            connection = self._connection(server, patience)
            try:
                connection.connect()
                connected = True
                connection.sock.settimeout(patience)
                return self._exchange(connection, server, method, path, body)
            except (OSError, http.client.HTTPException, NoAnswer) as error:
                server.hopeless = not self._met and _lasts(error)
                self._leave(index)
                if left == 0 or not (not connected or server.hopeless):
                    raise self._trouble(server, error) from None
            finally:
                connection.close()
        raise AssertionError("not reached")

    def get(self, path: str, **query: Any) -> Answer:
        """A ``GET``. Members that are ``None`` are left out."""
        text = urlencode({name: value for name, value in query.items() if value is not None}, quote_via=quote)
        return self.send("GET", f"{path}?{text}" if text else path)

    def _connection(self, server: _Server, patience: float) -> http.client.HTTPConnection:
        limit = min(CONNECT, patience)
        if server.tls:
            return http.client.HTTPSConnection(server.host, server.port, timeout=limit, context=self._tls)
        return http.client.HTTPConnection(server.host, server.port, timeout=limit)

    def _exchange(
        self, connection: http.client.HTTPConnection, server: _Server, method: str, path: str, body: Any
    ) -> Answer:
        headers = {"User-Agent": "locker-python", "Connection": "close"}
        if server.header:
            headers["Authorization"] = server.header
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, server.path + path, data, headers)
        response = connection.getresponse()
        raw = response.read(BODY_BYTES)
        try:
            parsed = json.loads(raw)
        except ValueError:
            parsed = None
        ours = isinstance(parsed, dict) and (response.status < 300 or "code" in parsed)
        if not ours:
            raise _Foreign(response.status)
        self._met = True
        if response.status < 300 or (response.status == 423 and "parked" in parsed):
            return Answer(response.status, parsed)
        if response.status in (408, 429) or response.status >= 500:
            raise NoAnswer(f"{parsed.get('error')} ({parsed.get('code')})")
        raise refused(parsed, response.status)

    def _leave(self, index: int) -> None:
        with self._guard:
            if self._current == index:
                self._current = (index + 1) % len(self._servers)

    def _trouble(self, server: _Server, error: Exception) -> NoAnswer:
        kind = Hopeless if all(one.hopeless for one in self._servers) else NoAnswer
        return kind(f"no answer from the locker server at {server.name}: {_in_words(error)}")


class _Foreign(NoAnswer):
    """An answer that does not come from a locker server."""

    def __init__(self, status: int) -> None:
        said = "a redirect" if 300 <= status < 400 else "an answer"
        super().__init__(f"{said} (status {status}) that does not come from a locker server")
        self.lasts = (status < 500 and status not in PASSING) or status == 501


def _lasts(error: Exception) -> bool:
    """Whether asking again does not help: somebody has to change something first."""
    if isinstance(error, _Foreign):
        return error.lasts
    return isinstance(error, (ssl.SSLCertVerificationError, http.client.BadStatusLine)) and not isinstance(
        error, http.client.RemoteDisconnected
    )


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}): give ca_file"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed before the answer"
    if isinstance(error, http.client.HTTPException):
        return "it does not answer in HTTP: does it expect https://?"
    return str(error) or type(error).__name__


def _header(server: _Server, username: Optional[str], password: Optional[str], token: Optional[str]) -> Optional[str]:
    if token is not None:
        _plain(token)
        return f"Bearer {token}"
    pair = (username, password or "") if username is not None else server.userinfo
    if pair is None:
        return None
    return "Basic " + base64.b64encode(f"{pair[0]}:{pair[1]}".encode()).decode()


def _plain(token: str) -> None:
    if not token or any(not "!" <= char <= "~" for char in token):
        raise LockerError("the token has characters that no token has: look for spaces and newlines around it")


def _context(ca_file: Optional[str], cert_file: Optional[str], key_file: Optional[str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file) if ca_file else ssl.create_default_context()
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    return context
