"""A stub of the Hugging Face hub: the endpoints that a model download uses, with folders as repositories.

Every folder ORGANISATION/NAME under the root is a repository. The configuration says which repositories are
gated or private, which tokens may read them, and which faults occur. Set HF_ENDPOINT to the stub's URL.
"""
