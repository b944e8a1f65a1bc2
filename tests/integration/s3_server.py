# SPDX-License-Identifier: MIT
"""An S3 server: OpenStack Swift of Debian's python3-swift, whole and real, in one process.

    python3 s3_server.py FOLDER PORT

Its S3 side (middleware s3api) checks signatures. The access key is `test:tester`, the secret `testing`, the region
us-east-1. FOLDER must take extended attributes, as ext4, xfs and btrfs do. "ready" on standard output when it answers.
"""
import os
import sys

from swift.common import utils

utils.eventlet_monkey_patch()

import eventlet  # noqa: E402
from eventlet import listen, wsgi  # noqa: E402
from swift.common import storage_policy  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

PROXY = """
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors cache s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
check_bucket_owner = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
"""


class Quiet:
    """A log that nobody reads."""

    def write(self, *_):
        pass

    debug = info = warning = error = write


def start_part(folder, kind, controller):
    """One of the three servers behind the proxy, and the ring that leads to it."""
    sock = listen(("127.0.0.1", 0))
    builder = RingBuilder(1, 1, 0)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1",
                     "port": sock.getsockname()[1], "device": "disk"})
    builder.rebalance()
    builder.get_ring().save(os.path.join(folder, kind + ".ring.gz"))
    app = controller({"devices": folder, "mount_check": "false", "swift_dir": folder, "disable_fallocate": "true",
                      "fallocate_reserve": "0"})
    eventlet.spawn(wsgi.server, sock, app, Quiet(), log_output=False)


def main(folder, port):
    os.makedirs(os.path.join(folder, "disk"), exist_ok=True)
    with open(os.path.join(folder, "swift.conf"), "w", encoding="ascii") as f:
        f.write("[swift-hash]\nswift_hash_path_suffix = test\n[storage-policy:0]\nname = one\ndefault = yes\n")
    with open(os.path.join(folder, "proxy.conf"), "w", encoding="ascii") as f:
        f.write(PROXY.format(folder=folder))
    utils.SWIFT_CONF_FILE = os.path.join(folder, "swift.conf")
    utils.HASH_PATH_SUFFIX = b"test"
    storage_policy.reload_storage_policies()

    from swift.account.server import AccountController
    from swift.container.server import ContainerController
    from swift.obj.server import ObjectController

    start_part(folder, "account", AccountController)
    start_part(folder, "container", ContainerController)
    start_part(folder, "object", ObjectController)
    app = loadapp(os.path.join(folder, "proxy.conf"))
    sock = listen(("127.0.0.1", port))
    print("ready", sock.getsockname()[1], flush=True)
    wsgi.server(sock, app, Quiet(), log_output=False)


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), int(sys.argv[2]))
