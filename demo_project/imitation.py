"""The server of last resort: fakeredis on a free port of this machine. Run as a file."""

from fakeredis import TcpFakeServer


def main() -> None:
    server = TcpFakeServer(("127.0.0.1", 0), server_type="valkey")
    server.daemon_threads = True
    host, port = server.server_address[:2]
    print(f"Ready to accept connections at redis://{host}:{port}/0", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
