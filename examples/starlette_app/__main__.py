"""`python -m examples.starlette_app`: the notepad under uvicorn."""

import argparse

import uvicorn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.starlette_app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    arguments = parser.parse_args()
    uvicorn.run("examples.starlette_app.app:app", host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
