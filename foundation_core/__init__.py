"""The library: Arrow and PyTorch. It knows no flow, no cluster and no tracking server."""
