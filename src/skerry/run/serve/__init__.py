"""Serving: models behind HTTP and gRPC, for programs that ask instead of being fed by a pipeline."""
