"""A process that measures a pool and can be killed: DATABASE CONFIGS DEVICE..."""

from __future__ import annotations

import sys

from search import pool_batches
from search.pool_build import build_pool
from search.progress import silent
from search.store import Store

if __name__ == "__main__":
    database, configs, *devices = sys.argv[1:]
    pool_batches.BATCH = 1
    with Store(database) as store:
        build_pool(store, "tiny", silent, devices=devices, configs=int(configs), processes=1)
