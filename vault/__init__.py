"""What is stored sealed or hashed, and how it gets under a new encryption key.

    hashed.py      secrets that clients hold and we know by hash alone: for client keys and API tokens
    sealed.py      keys that the deployment makes itself, under encryption; the canary of ENCRYPTION_KEY
    reencrypt.py   every sealed value under the newest encryption key, while gateways serve

A secret goes out once and comes back as text -> its hash -> hashed.py finds what it is, in memory.
"""
