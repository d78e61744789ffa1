"""What is stored sealed or hashed, and how it gets under a new encryption key.

    hashed.py       secrets that clients hold and we know by hash alone: for client keys and API tokens
    sealed.py       keys that the deployment makes itself, under encryption; the canary of ENCRYPTION_KEY
    reencrypt.py    every sealed value under the newest encryption key, while gateways serve
    backup.py       all tables as one stream, and back into those of any engine
    backup_file.py  the file that holds it, under a passphrase

A secret goes out once and comes back as text -> its hash -> hashed.py finds what it is, in memory.
"""
