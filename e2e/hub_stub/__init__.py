"""A stand-in for the Hugging Face hub: the few endpoints that downloading a model uses, over plain folders.

Every folder ORGANISATION/NAME under the root is a repository. Which of them are gated or private, which
tokens open them and what goes wrong is configuration. Point HF_ENDPOINT at it.
"""
