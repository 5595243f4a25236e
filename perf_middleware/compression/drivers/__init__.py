"""The content codings by their libraries, each imported on first use."""
